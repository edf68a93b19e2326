//! Entities and workers outlive the runtime on which they were started.

use std::{future::pending, sync::Arc, sync::mpsc};

use factum_runtime::{RestartPolicy, Supervisor, Worker, WorkerState};
use factum_testing::SeededIds;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::{
    bench::{Bench, millis, options},
    counter::{Counter, CounterCommand},
    driving::SOON,
};

fn runtime() -> Runtime {
    Runtime::new().unwrap()
}

fn supervisor(bench: &Bench) -> Supervisor {
    Supervisor::new(Arc::new(bench.clock.clone()), Arc::new(SeededIds::new(7)))
}

#[test]
fn idle_entities_are_passivated_on_another_runtime_when_the_first_has_ended() {
    let bench = Bench::new();
    let counters = bench.entities::<Counter>(options().with_idle(millis(1_000)));
    let first = runtime();
    first.block_on(counters.ask("old", CounterCommand::Add)).unwrap();
    drop(first);
    // A single-threaded runtime, so that the sweeper runs only while this test waits.
    let second = Builder::new_current_thread().enable_time().build().unwrap();
    second.block_on(async {
        counters.ask("new", CounterCommand::Add).await.unwrap();
        let passivated = async {
            while counters.stats().passivated < 2 {
                bench.clock.until_sleeping(1).await;
                bench.clock.advance(millis(250));
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, passivated).await.expect("both are passivated");
    });
}

#[test]
fn a_worker_whose_runtime_has_ended_runs_on_the_one_that_restarts_it() {
    let supervisor = supervisor(&Bench::new());
    let worker = Worker::new("beats", |cx| async move {
        cx.stopping().await;
        Ok(())
    });
    let first = runtime();
    first.block_on(async { supervisor.add(worker).unwrap() });
    drop(first);
    assert_eq!(supervisor.health()[0].state, WorkerState::Stopped);
    runtime().block_on(async {
        supervisor.restart("beats").unwrap();
        assert_eq!(supervisor.health()[0].state, WorkerState::Running);
        let stopped = timeout(SOON, supervisor.shutdown()).await.unwrap();
        assert!(stopped.dropped.is_empty(), "it ran, and stopped when it was asked to");
    });
}

#[test]
fn a_worker_that_waits_to_be_started_again_is_not_forgotten_with_its_runtime() {
    let supervisor = supervisor(&Bench::new());
    let first = runtime();
    first.block_on(async {
        supervisor.add(Worker::new("ill", |_| async { Err("it fails".into()) })).unwrap();
        let is_waiting = |it: &[_]| matches!(it, [one] if is_backing_off(one));
        supervisor.until(is_waiting).await;
    });
    drop(first);
    assert_eq!(supervisor.health()[0].state, WorkerState::Stopped, "nothing starts it again");
    runtime().block_on(async {
        supervisor.restart("ill").unwrap();
        let is_waiting = |it: &[_]| matches!(it, [one] if is_backing_off(one));
        timeout(SOON, supervisor.until(is_waiting)).await.expect("it is run again");
    });
}

fn is_backing_off(worker: &factum_runtime::WorkerHealth) -> bool {
    matches!(worker.state, WorkerState::BackingOff(_))
}

#[test]
fn a_shutdown_does_not_wait_for_a_grace_that_a_runtime_took_with_it() {
    let supervisor = supervisor(&Bench::new());
    let (blocks, is_blocked) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    let waits = Arc::new(std::sync::Mutex::new(waits));
    let worker = Worker::new("blocks", move |_| {
        let blocks = blocks.clone();
        let waits = waits.clone();
        async move {
            blocks.send(()).unwrap();
            let _ = waits.lock().unwrap().recv();
            pending().await
        }
    });
    let first = runtime();
    first.block_on(async {
        supervisor.add(worker.with_policy(RestartPolicy::Never)).unwrap();
    });
    is_blocked.recv().unwrap();
    first.shutdown_background();
    runtime().block_on(async {
        let stopped = timeout(SOON, supervisor.shutdown()).await.expect("it ends");
        assert_eq!(stopped.dropped, ["blocks".into()]);
    });
    go_on.send(()).unwrap();
}
