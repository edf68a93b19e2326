//! On what is measured: a journal of the benchmark's own, or an empty store.

use std::{fs, path::PathBuf};

use factum::{App, Clock, IdSource, ReadQuery, SystemClock, SystemIds};

use crate::{
    args::GroundArgs,
    exit::{Exit, Failure},
    place::Place,
};

/// An open application, and the folder that goes with it.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) app: App,
    pub(crate) place: Place,
    _folder: Option<Folder>,
}

impl Ground {
    /// Opens what the command line asks for.
    pub(crate) async fn open(args: &GroundArgs) -> Result<Self, Failure> {
        let folder = if args.store.is_none() { Some(Folder::make(args)?) } else { None };
        let new = || folder.as_ref().map(|it| format!("journal:{}", it.0.join("log").display()));
        let url = args.store.clone().or_else(new).expect("one of the two is given");
        let place = Place::find(&url)?;
        let app = App::open(&url).await?;
        let page = app.kernel().events().read(ReadQuery::log().with_events_max(1)).await?;
        if page.head.value() > 0 {
            app.close().await?;
            let text = format!("the log holds events, name an empty store: store={place}");
            return Err(Failure::new(Exit::Usage, text));
        }
        Ok(Self { app, place, _folder: folder })
    }
}

/// A folder that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Makes one on the disk that the command line names.
    pub(crate) fn make(args: &GroundArgs) -> Result<Self, Failure> {
        let disk = args.disk.clone().unwrap_or_else(std::env::temp_dir);
        let folder = disk.join(format!("factum-bench-{}", SystemIds.uuid(SystemClock.now())));
        fs::create_dir(&folder).map_err(|error| {
            let folder = folder.display();
            Failure::new(Exit::Usage, format!("the folder can't be made: {error}: {folder}"))
        })?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is the temporary folder's matter.
        let _ = fs::remove_dir_all(&self.0);
    }
}
