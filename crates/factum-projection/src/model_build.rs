//! The builds of a projection: which one readers see, which one is being made. Pure.

mod stored;

use std::fmt;

use factum_consumer::ConsumerName;
use serde::{Deserialize, Serialize};

pub(crate) use stored::{CLEAR_AFTER, REFRESH, StoredBuilds};

/// One making of a read model: the version of the projection that makes it, and a number for the
/// case that this version makes it more than once.
///
/// ```
/// use factum_projection::Build;
///
/// assert_eq!(Build { version: 2, generation: 0 }.to_string(), "2");
/// assert_eq!(Build { version: 2, generation: 7 }.to_string(), "2.7");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Build {
    /// The version of the projection.
    pub version: u32,
    /// 0 for the first one of a version; never used again.
    pub generation: u32,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.version),
            generation => write!(f, "{}.{generation}", self.version),
        }
    }
}

impl Build {
    /// The name of the consumer that makes it, under which it is kept: `name@version` or
    /// `name@version.generation`.
    pub(crate) fn consumer(self, projection: &ConsumerName) -> ConsumerName {
        projection.versioned(self)
    }
}

/// Why a build is not begun, swapped in, or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// This one is being made.
    Building(Build),
    /// It is not the one that is being made.
    Superseded(Build),
    /// There is no earlier one.
    NothingKept,
}

/// What is stored of a projection's builds. Each change of it is one write under the revision that
/// was read, so of several processes one wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Builds {
    /// What readers see.
    pub(crate) serving: Build,
    /// What they saw before.
    pub(crate) previous: Option<Build>,
    /// What they will see.
    pub(crate) building: Option<Build>,
    /// What nobody will see again, and is not cleared yet.
    pub(crate) dropped: Vec<Build>,
    /// How many partitions each was begun with, where that is more than one.
    #[serde(default)]
    partitions: Vec<(Build, usize)>,
    version_max: u32,
    generation_max: u32,
    /// The change that this is from, so that one whose answer is lost is known again.
    pub(crate) change: (u64, u64),
}

impl Builds {
    /// A projection that starts for the first time: there is nothing older to show.
    pub(crate) fn first(version: u32, partitions: usize) -> Self {
        let serving = Build { version, generation: 0 };
        let mut builds = Self {
            serving,
            previous: None,
            building: None,
            dropped: Vec::new(),
            partitions: Vec::new(),
            version_max: version,
            generation_max: 0,
            change: (0, 0),
        };
        builds.lay_out(serving, partitions);
        builds
    }

    /// How many partitions a build has, from its beginning to its end.
    pub(crate) fn partitions(&self, build: Build) -> usize {
        let found = self.partitions.iter().find(|(of, _)| *of == build);
        found.map_or(1, |(_, partitions)| *partitions)
    }

    fn lay_out(&mut self, build: Build, partitions: usize) {
        if partitions > 1 {
            self.partitions.push((build, partitions));
        }
    }

    /// Nothing is left of a build that was dropped.
    pub(crate) fn cleared(&mut self, build: Build) {
        self.dropped.retain(|it| *it != build);
        self.partitions.retain(|(of, _)| *of != build);
    }

    /// A program of this version starts: a newer one begins its build, unless it has been there
    /// and was rolled back.
    pub(crate) fn start(&mut self, version: u32, partitions: usize) {
        let was_rolled_back = self.previous.is_some_and(|build| build.version == version);
        let is_building = self.building.is_some_and(|build| build.version >= version);
        if version > self.serving.version && !was_rolled_back && !is_building {
            self.dropped.extend(self.building.take());
            self.building = Some(self.next(version, partitions));
        }
    }

    /// Begins another build.
    pub(crate) fn begin(&mut self, version: u32, partitions: usize) -> Result<Build, Unfit> {
        if let Some(build) = self.building {
            return Err(Unfit::Building(build));
        }
        let build = self.next(version, partitions);
        self.building = Some(build);
        Ok(build)
    }

    /// The build is what readers see from now on. The one from before is kept, the one before that
    /// is not.
    pub(crate) fn swap(&mut self, build: Build) -> Result<(), Unfit> {
        self.building.take_if(|it| *it == build).ok_or(Unfit::Superseded(build))?;
        self.dropped.extend(self.previous.take());
        self.previous = Some(std::mem::replace(&mut self.serving, build));
        Ok(())
    }

    /// The build is given up.
    pub(crate) fn cancel(&mut self, build: Build) -> Result<(), Unfit> {
        let build = self.building.take_if(|it| *it == build).ok_or(Unfit::Superseded(build))?;
        self.dropped.push(build);
        Ok(())
    }

    /// Readers see again what they saw before; a build under way is given up, it would undo that.
    pub(crate) fn roll_back(&mut self) -> Result<Build, Unfit> {
        let previous = self.previous.as_mut().ok_or(Unfit::NothingKept)?;
        std::mem::swap(previous, &mut self.serving);
        self.dropped.extend(self.building.take());
        Ok(self.serving)
    }

    /// What readers saw before goes.
    pub(crate) fn discard_old(&mut self) -> Result<Build, Unfit> {
        let build = self.previous.take().ok_or(Unfit::NothingKept)?;
        self.dropped.push(build);
        Ok(build)
    }

    /// Readers see an empty build, and everything else goes.
    pub(crate) fn reset(&mut self, version: u32, partitions: usize) -> Build {
        let build = self.next(version, partitions);
        let before = std::mem::replace(&mut self.serving, build);
        self.dropped.push(before);
        self.dropped.extend(self.previous.take().into_iter().chain(self.building.take()));
        build
    }

    /// Whether it can be read still.
    pub(crate) fn keeps(&self, build: Build) -> bool {
        self.serving == build || self.previous == Some(build)
    }

    fn next(&mut self, version: u32, partitions: usize) -> Build {
        let generation = match version > self.version_max {
            true => 0,
            false => self.generation_max + 1,
        };
        self.version_max = self.version_max.max(version);
        self.generation_max = self.generation_max.max(generation);
        let build = Build { version, generation };
        self.lay_out(build, partitions);
        build
    }
}

#[cfg(test)]
mod tests;
