//! Long-running workers: started, restarted, given up, stopped in order.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use factum_kernel::{Clock, StoreError, SystemClock};
use factum_runtime::{
    Restart, RestartPolicy, RestartStrategy, Supervisor, SupervisorError, Worker, WorkerHealth,
    WorkerState,
};
use factum_testing::{SeededIds, VirtualClock};

use crate::bench::millis;

/// The events of a test, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn supervisor(clock: &VirtualClock) -> Supervisor {
    Supervisor::new(Arc::new(clock.clone()), Arc::new(SeededIds::new(7)))
}

fn clock() -> VirtualClock {
    VirtualClock::new("2026-03-01T08:00:00Z".parse().unwrap())
}

/// Notes its start and its stop, and stops when it is asked to.
fn good(name: &'static str, diary: &Diary) -> Worker {
    let diary = diary.clone();
    Worker::new(name, move |cx| {
        let diary = diary.clone();
        async move {
            diary.write(format!("{name} starts"));
            cx.stopping().await;
            diary.write(format!("{name} stops"));
            Ok(())
        }
    })
}

/// Fails a given number of times, then runs.
fn failing(name: &'static str, times: usize) -> Worker {
    let runs = Arc::new(AtomicUsize::new(0));
    Worker::new(name, move |cx| {
        let run = runs.fetch_add(1, SeqCst);
        async move {
            match run {
                run if run >= times => cx.stopping().await,
                run if run % 2 == 0 => panic!("run {run}"),
                run => return Err(format!("run {run}").into()),
            }
            Ok(())
        }
    })
}

fn state(workers: &[WorkerHealth], name: &str) -> Option<WorkerState> {
    workers.iter().find(|it| &*it.name == name).map(|it| it.state)
}

async fn until(supervisor: &Supervisor, name: &str, expected: WorkerState) {
    supervisor.until(|workers| state(workers, name) == Some(expected)).await;
}

#[tokio::test]
async fn one_that_fails_and_panics_runs_again_after_pauses_and_nobody_else_notices() {
    let clock = clock();
    let diary = Diary::default();
    let supervisor = supervisor(&clock);
    supervisor.add(good("well", &diary)).unwrap();
    supervisor.add(failing("ill", 3)).unwrap();
    for pause in [100, 200, 400] {
        until(&supervisor, "ill", WorkerState::BackingOff(millis(pause))).await;
        clock.until_sleeping(1).await;
        // At least half of a pause is waited for.
        clock.advance(millis(pause / 2 - 1));
        tokio::task::yield_now().await;
        let health = supervisor.health();
        assert_eq!(state(&health, "ill"), Some(WorkerState::BackingOff(millis(pause))));
        clock.advance(millis(pause / 2 + 1));
    }
    until(&supervisor, "ill", WorkerState::Running).await;
    let [well, ill] = &supervisor.health()[..] else { panic!("two") };
    assert_eq!((well.restarts, ill.restarts), (0, 3));
    assert_eq!(ill.cause.as_deref(), Some("it panicked: \"run 2\""));
    assert_eq!(ill.since, clock.now());
    assert_eq!(diary.lines(), ["well starts"]);
}

#[tokio::test]
async fn one_that_keeps_failing_is_given_up_and_started_by_order() {
    let clock = clock();
    let supervisor = supervisor(&clock);
    let restart = Restart::new()
        .with_pauses(Duration::ZERO, Duration::ZERO)
        .with_deaths_max(4, Duration::from_secs(1));
    supervisor.add(failing("ill", 4).with_restart(restart)).unwrap();
    until(&supervisor, "ill", WorkerState::GivenUp).await;
    assert_eq!(supervisor.health()[0].restarts, 3);
    supervisor.restart("ill").unwrap();
    until(&supervisor, "ill", WorkerState::Running).await;
    assert!(matches!(supervisor.restart("nobody"), Err(SupervisorError::Unknown(_))));
}

/// An error as a user would write it.
#[derive(Debug, thiserror::Error)]
enum Unpaid {
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[tokio::test]
async fn one_that_fails_in_an_outage_is_never_given_up() {
    let clock = clock();
    let supervisor = supervisor(&clock);
    let restart = Restart::new()
        .with_pauses(Duration::ZERO, Duration::ZERO)
        .with_deaths_max(2, Duration::from_secs(60));
    let runs = Arc::new(AtomicUsize::new(0));
    let interest = Worker::new("interest", move |cx| {
        let is_away = runs.fetch_add(1, SeqCst) < 20;
        async move {
            if is_away {
                return Err(Unpaid::from(StoreError::unavailable("away")).into());
            }
            cx.stopping().await;
            Ok(())
        }
    });
    supervisor.add(interest.with_restart(restart)).unwrap();
    let is_over = |it: &WorkerHealth| it.restarts == 20 || it.state == WorkerState::GivenUp;
    supervisor.until(|workers| workers.iter().all(is_over)).await;
    let [worker] = &supervisor.health()[..] else { panic!("one") };
    assert_eq!((worker.state, worker.restarts), (WorkerState::Running, 20));
    assert_eq!(worker.cause.as_deref(), Some("away"));
}

#[tokio::test]
async fn each_change_of_a_state_is_reported_in_order_and_a_report_that_panics_changes_nothing() {
    let clock = clock();
    let supervisor = supervisor(&clock);
    let diary = Diary::default();
    let told = diary.clone();
    let worker = failing("ill", 2).with_policy(RestartPolicy::Transient);
    supervisor
        .add(worker.with_report(move |health| {
            let state = match health.state {
                WorkerState::BackingOff(_) => "BackingOff".into(),
                state => format!("{state:?}"),
            };
            told.write(format!("{state} {}", health.failures));
            assert_ne!(state, "Running", "a defect of the report");
        }))
        .unwrap();
    for failures in 1..=2 {
        supervisor.until(|workers| workers[0].failures == failures).await;
        clock.until_sleeping(1).await;
        clock.advance(millis(60_000));
    }
    until(&supervisor, "ill", WorkerState::Running).await;
    assert!(supervisor.shutdown().await.dropped.is_empty());
    let lines = diary.lines();
    let expected =
        ["Running 0", "BackingOff 1", "Running 1", "BackingOff 2", "Running 2", "Stopping 2"];
    assert_eq!(lines[..6], expected);
}

#[tokio::test]
async fn one_without_a_grace_is_never_dropped() {
    let clock = clock();
    let supervisor = supervisor(&clock);
    let gate = Arc::new(tokio::sync::Notify::new());
    let opens = gate.clone();
    let slow = Worker::new("slow", move |cx| {
        let opens = opens.clone();
        async move {
            cx.stopping().await;
            opens.notified().await;
            Ok(())
        }
    });
    supervisor.add(slow.with_grace(None)).unwrap();
    let stopping = supervisor.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown().await });
    until(&supervisor, "slow", WorkerState::Stopping).await;
    clock.advance(millis(3_600_000));
    tokio::task::yield_now().await;
    assert!(!stopped.is_finished());
    gate.notify_one();
    assert!(stopped.await.unwrap().dropped.is_empty());
}

#[tokio::test]
async fn an_end_without_an_error_is_final_for_the_transient_only() {
    let clock = clock();
    let supervisor = supervisor(&clock);
    let done = |name| Worker::new(name, |_| async { Ok(()) });
    supervisor.add(done("transient").with_policy(RestartPolicy::Transient)).unwrap();
    supervisor.add(done("permanent")).unwrap();
    supervisor.add(failing("never", 9).with_policy(RestartPolicy::Never)).unwrap();
    until(&supervisor, "transient", WorkerState::Stopped).await;
    until(&supervisor, "never", WorkerState::Stopped).await;
    until(&supervisor, "permanent", WorkerState::BackingOff(millis(100))).await;
    assert_eq!(supervisor.health()[2].cause.as_deref(), Some("it panicked: \"run 0\""));
}

#[tokio::test]
async fn a_group_starts_again_behind_the_one_that_failed() {
    let clock = clock();
    let diary = Diary::default();
    let supervisor = supervisor(&clock);
    let group = || RestartStrategy::RestForOne("orders".into());
    supervisor.add(good("first", &diary).with_strategy(group())).unwrap();
    supervisor.add(failing("second", 1).with_strategy(group())).unwrap();
    supervisor.add(good("third", &diary).with_strategy(group())).unwrap();
    supervisor.add(good("alone", &diary)).unwrap();
    until(&supervisor, "third", WorkerState::Waiting).await;
    clock.until_sleeping(1).await;
    clock.advance(millis(100));
    until(&supervisor, "third", WorkerState::Running).await;
    let stopped = supervisor.shutdown().await;
    assert!(stopped.dropped.is_empty());
    let lines = diary.lines();
    assert_eq!(lines.iter().filter(|line| **line == "first starts").count(), 1);
    assert_eq!(lines[lines.len() - 3..], ["alone stops", "third stops", "first stops"]);
    assert!(lines.iter().filter(|line| **line == "alone stops").count() == 1);
}

#[tokio::test]
async fn a_shutdown_goes_in_reverse_and_drops_and_names_whoever_does_not_stop() {
    let clock = clock();
    let diary = Diary::default();
    let supervisor = supervisor(&clock);
    let stubborn = |name: &'static str, diary: &Diary| {
        let diary = diary.clone();
        Worker::new(name, move |_| {
            let guard = OnDrop(diary.clone(), name);
            async move {
                let _guard = guard;
                pending().await
            }
        })
    };
    supervisor.add(good("first", &diary)).unwrap();
    supervisor.add(stubborn("second", &diary).with_grace(millis(500))).unwrap();
    supervisor.add(good("third", &diary)).unwrap();
    until(&supervisor, "third", WorkerState::Running).await;
    let ending = tokio::spawn({
        let supervisor = supervisor.clone();
        async move { supervisor.shutdown().await }
    });
    clock.until_sleeping(1).await;
    assert_eq!(diary.lines().last().unwrap(), "third stops");
    assert_eq!(state(&supervisor.health(), "first"), Some(WorkerState::Running), "in order");
    clock.advance(millis(500));
    let stopped = ending.await.unwrap();
    assert_eq!(stopped.dropped, ["second".into()]);
    until(&supervisor, "second", WorkerState::Stopped).await;
    assert!(diary.lines().contains(&"second is dropped".to_owned()));
    assert_eq!(supervisor.shutdown().await, stopped, "a second call");
    let refused = supervisor.add(good("late", &diary));
    assert_eq!(refused, Err(SupervisorError::Closed));
}

struct OnDrop(Diary, &'static str);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.write(format!("{} is dropped", self.1));
    }
}

#[tokio::test]
async fn workers_come_and_go_and_names_are_unique() {
    let clock = clock();
    let diary = Diary::default();
    let supervisor = supervisor(&clock);
    supervisor.add(good("one", &diary)).unwrap();
    let taken = supervisor.add(good("one", &diary));
    assert_eq!(taken, Err(SupervisorError::NameTaken("one".into())));
    assert_eq!(supervisor.remove("one").await, Ok(true));
    assert_eq!(supervisor.remove("one").await, Err(SupervisorError::Unknown("one".into())));
    assert!(supervisor.health().is_empty());
    supervisor.add(good("one", &diary)).unwrap();
    until(&supervisor, "one", WorkerState::Running).await;
    tokio::task::yield_now().await;
    assert_eq!(diary.lines().iter().filter(|line| **line == "one starts").count(), 2);
}

#[tokio::test]
async fn without_a_handle_the_workers_stop() {
    let clock = clock();
    let diary = Diary::default();
    let supervisor = supervisor(&clock);
    let (told, stopped) = tokio::sync::oneshot::channel();
    let told = Mutex::new(Some(told));
    supervisor
        .add(Worker::new("one", move |cx| {
            let told = told.lock().unwrap().take();
            async move {
                cx.stopping().await;
                assert!(cx.is_stopping());
                told.unwrap().send(()).unwrap();
                Ok(())
            }
        }))
        .unwrap();
    supervisor.add(good("two", &diary)).unwrap();
    tokio::task::yield_now().await;
    drop(supervisor);
    stopped.await.unwrap();
}

#[test]
fn a_runtime_that_ends_takes_the_workers_with_it_and_nothing_panics() {
    let clock = clock();
    let diary = Diary::default();
    let supervisor = supervisor(&clock);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        supervisor.add(good("one", &diary)).unwrap();
        supervisor.add(failing("ill", 1)).unwrap();
        until(&supervisor, "one", WorkerState::Running).await;
    });
    drop(runtime);
    assert_eq!(state(&supervisor.health(), "one"), Some(WorkerState::Stopped));
    supervisor.restart("one").unwrap();
    for worker in supervisor.health() {
        assert_eq!(worker.state, WorkerState::Stopped, "{}", worker.name);
        let cause = "the worker's runtime has ended, restart it on another";
        assert_eq!(worker.cause.as_deref(), Some(cause));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_fail_at_once_are_each_started_again() {
    // The machine's clock, because on a clock that moves with every sleep a grace ends at once.
    let supervisor = Supervisor::new(Arc::new(SystemClock), Arc::new(SeededIds::new(7)));
    let restart = Restart::new().with_pauses(millis(1), millis(5)).with_deaths_max(9, millis(9));
    for at in 0..200 {
        let runs = Arc::new(AtomicUsize::new(0));
        let running = Arc::new(AtomicUsize::new(0));
        let worker = Worker::new(format!("worker {at}"), move |cx| {
            let run = runs.fetch_add(1, SeqCst);
            let running = running.clone();
            async move {
                assert_eq!(running.fetch_add(1, SeqCst), 0, "one run at a time");
                tokio::task::yield_now().await;
                running.fetch_sub(1, SeqCst);
                if run < 5 {
                    return Err("again".into());
                }
                cx.stopping().await;
                Ok(())
            }
        });
        supervisor.add(worker.with_restart(restart)).unwrap();
    }
    let is_up = |it: &WorkerHealth| it.restarts == 5 && it.state == WorkerState::Running;
    supervisor.until(|workers| workers.iter().all(is_up)).await;
    assert!(supervisor.shutdown().await.dropped.is_empty());
}
