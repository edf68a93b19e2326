//! The builds of a projection: the serving one, the earlier one, the one being built. The rules
//! here are pure.

mod stored;

use std::fmt;

use factum_consumer::ConsumerName;
use serde::{Deserialize, Serialize};

pub(crate) use stored::{CLEAR_AFTER, REFRESH, StoredBuilds};

/// One construction of a read model: the version of the projection that builds it, and a
/// generation, which counts repeated builds of a version.
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
    /// 0 for the first build of a version. Later builds get numbers that were never used before.
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
    /// The name of the consumer that maintains this build, which is also the name of its stored
    /// data: `name@version` or `name@version.generation`.
    pub(crate) fn consumer(self, projection: &ConsumerName) -> ConsumerName {
        projection.versioned(self)
    }
}

/// The reason why a build is not begun, swapped in, or dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another build is under way.
    Building(Build),
    /// The build is not under way any more: it was cancelled, or another build took its place.
    Superseded(Build),
    /// No earlier build is kept.
    NothingKept,
}

/// The stored list of a projection's builds. Each change is one write on condition of the revision
/// that was read, so one of several processes wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Builds {
    /// The build that readers see.
    pub(crate) serving: Build,
    /// The build that readers saw before.
    pub(crate) previous: Option<Build>,
    /// The build under way, which readers will see.
    pub(crate) building: Option<Build>,
    /// Builds that no reader will see again and that are not cleared yet.
    pub(crate) dropped: Vec<Build>,
    /// The number of partitions of each build that has more than one.
    #[serde(default)]
    partitions: Vec<(Build, usize)>,
    /// The versions that have served and were rolled back.
    #[serde(default)]
    rolled_back: Vec<u32>,
    version_max: u32,
    generation_max: u32,
    /// The id of the last change: a process whose write had no answer recognises its own change by
    /// it.
    pub(crate) change: (u64, u64),
}

impl Builds {
    /// The builds of a projection that starts for the first time: its first build serves at once.
    pub(crate) fn first(version: u32, partitions: usize) -> Self {
        let serving = Build { version, generation: 0 };
        let mut builds = Self {
            serving,
            previous: None,
            building: None,
            dropped: Vec::new(),
            partitions: Vec::new(),
            rolled_back: Vec::new(),
            version_max: version,
            generation_max: 0,
            change: (0, 0),
        };
        builds.set_partitions(serving, partitions);
        builds
    }

    /// The number of partitions of a build, which never changes.
    pub(crate) fn partitions(&self, build: Build) -> usize {
        let found = self.partitions.iter().find(|(of, _)| *of == build);
        found.map_or(1, |(_, partitions)| *partitions)
    }

    fn set_partitions(&mut self, build: Build, partitions: usize) {
        if partitions > 1 {
            self.partitions.push((build, partitions));
        }
    }

    /// Removes a dropped build from the list, because its data is cleared.
    pub(crate) fn remove_cleared(&mut self, build: Build) {
        self.dropped.retain(|it| *it != build);
        self.partitions.retain(|(of, _)| *of != build);
    }

    /// Notes that a program of this version starts. A newer version begins its build, unless that
    /// version has served before and was rolled back.
    pub(crate) fn start(&mut self, version: u32, partitions: usize) {
        // Lists of an earlier program know it by the previous build alone.
        let was_rolled_back = self.rolled_back.contains(&version)
            || self.previous.is_some_and(|build| build.version == version);
        let is_building = self.building.is_some_and(|build| build.version >= version);
        if version > self.serving.version && !was_rolled_back && !is_building {
            self.dropped.extend(self.building.take());
            self.building = Some(self.next(version, partitions));
        }
    }

    /// Begins another build, unless one is under way.
    pub(crate) fn begin(&mut self, version: u32, partitions: usize) -> Result<Build, Refusal> {
        if let Some(build) = self.building {
            return Err(Refusal::Building(build));
        }
        let build = self.next(version, partitions);
        self.building = Some(build);
        Ok(build)
    }

    /// Makes the build serve. The build that served before is kept, the one before that is dropped.
    pub(crate) fn swap(&mut self, build: Build) -> Result<(), Refusal> {
        self.building.take_if(|it| *it == build).ok_or(Refusal::Superseded(build))?;
        self.dropped.extend(self.previous.take());
        self.previous = Some(std::mem::replace(&mut self.serving, build));
        Ok(())
    }

    /// Drops the build that is under way.
    pub(crate) fn cancel(&mut self, build: Build) -> Result<(), Refusal> {
        let build = self.building.take_if(|it| *it == build).ok_or(Refusal::Superseded(build))?;
        self.dropped.push(build);
        Ok(())
    }

    /// Swaps the serving build with the earlier one. A build under way is dropped, because it would
    /// undo the rollback.
    pub(crate) fn roll_back(&mut self) -> Result<Build, Refusal> {
        let previous = self.previous.as_mut().ok_or(Refusal::NothingKept)?;
        std::mem::swap(previous, &mut self.serving);
        let version = previous.version;
        if version > self.serving.version && !self.rolled_back.contains(&version) {
            self.rolled_back.push(version);
        }
        self.dropped.extend(self.building.take());
        Ok(self.serving)
    }

    /// Drops the earlier build.
    pub(crate) fn discard_old(&mut self) -> Result<Build, Refusal> {
        let build = self.previous.take().ok_or(Refusal::NothingKept)?;
        self.dropped.push(build);
        Ok(build)
    }

    /// Makes a new, empty build serve, and drops all others.
    pub(crate) fn reset(&mut self, version: u32, partitions: usize) -> Build {
        let build = self.next(version, partitions);
        let before = std::mem::replace(&mut self.serving, build);
        self.dropped.push(before);
        self.dropped.extend(self.previous.take().into_iter().chain(self.building.take()));
        build
    }

    /// Returns true if readers may still read this build.
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
        self.set_partitions(build, partitions);
        build
    }
}

#[cfg(test)]
mod tests;
