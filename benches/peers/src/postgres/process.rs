//! Processes of clients: this program, started again. Each prepares itself, reports that it is
//! ready, begins on a signal, and reports its measurements.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::{
    clients::Measured,
    postgres::{store::Store, subject::subject},
    run::client_threads,
};

const READY: &str = "ready";
const GO: &str = "go";

/// The job of a process of clients.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Job {
    #[arg(long)]
    pub(crate) url: String,
    #[arg(long, value_parser = Store::parse)]
    pub(crate) store: Store,
    /// The number of clients in all processes together.
    #[arg(long)]
    pub(crate) clients: usize,
    #[arg(long)]
    pub(crate) processes: usize,
    /// The number of this process, from 0.
    #[arg(long)]
    pub(crate) process: usize,
    /// The number of events in a bare insert.
    #[arg(long)]
    pub(crate) group: usize,
    #[arg(long)]
    pub(crate) time_ms: u64,
}

/// The writers in a process of clients.
pub(crate) trait Writers {
    /// Writes a little, so that connections and statements are ready.
    async fn warm_up(&mut self);
    /// Writes until the time is over.
    async fn write(&mut self, time: Duration) -> Measured;
    /// The number of groups formed so far, if the store forms groups.
    fn groups(&self) -> usize;
}

/// The measurements of a process of clients.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    events: usize,
    time: Duration,
    latencies_ns: Vec<u64>,
    groups: usize,
}

/// The main function of a process of clients.
pub(crate) fn serve(job: &Job) {
    subject(job.store).serve(&runtime(client_threads()), job);
}

pub(crate) fn runtime(threads: usize) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().expect("threads for the clients")
}

pub(crate) fn serve_writers(runtime: &Runtime, job: &Job, mut writers: impl Writers) {
    runtime.block_on(writers.warm_up());
    println!("{READY}");
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("the starting process signals the beginning");
    if line.trim() != GO {
        return; // The process that started it is gone.
    }
    let groups_before = writers.groups();
    let Measured { events, time, latencies } =
        runtime.block_on(writers.write(Duration::from_millis(job.time_ms)));
    let groups = writers.groups() - groups_before;
    let latencies_ns = latencies.iter().map(|latency| latency.as_nanos() as u64).collect();
    let answer = Answer { events, time, latencies_ns, groups };
    println!("{}", serde_json::to_string(&answer).expect("an answer has a form in JSON"));
}

/// The measurements of all processes together.
#[derive(Debug)]
pub(crate) struct Together {
    pub(crate) measured: Measured,
    /// The mean size of a group, if the store forms groups.
    pub(crate) group: Option<usize>,
}

/// Starts the processes, lets them begin together, and adds up their rates.
pub(crate) fn measure(job: &Job) -> Result<Together, String> {
    let jobs = (0..job.processes).map(|process| Job { process, ..job.clone() });
    let mut processes = jobs.map(|job| Process::start(&job)).collect::<Result<Vec<_>, _>>()?;
    for process in &mut processes {
        let line = process.line()?;
        assert_eq!(line.trim(), READY, "a process of clients says that it is ready");
    }
    for process in &mut processes {
        process.begin()?;
    }
    let mut answers = Vec::new();
    for process in &mut processes {
        let answer = serde_json::from_str::<Answer>(&process.line()?);
        answers.push(answer.map_err(|e| format!("a process of clients answers oddly: {e}"))?);
    }
    Ok(together(&answers))
}

fn together(answers: &[Answer]) -> Together {
    let events: usize = answers.iter().map(|answer| answer.events).sum();
    let groups: usize = answers.iter().map(|answer| answer.groups).sum();
    let rate = |answer: &Answer| answer.events as f64 / answer.time.as_secs_f64();
    let events_per_s: f64 = answers.iter().map(rate).sum();
    let latencies = answers.iter().flat_map(|answer| &answer.latencies_ns);
    let latencies = latencies.copied().map(Duration::from_nanos).collect();
    let time = Duration::from_secs_f64(events as f64 / events_per_s);
    let group = events.checked_div(groups).map(|group| group.max(1));
    Together { measured: Measured { events, time, latencies }, group }
}

/// A process of clients, seen from the process that started it. Its drop ends it.
struct Process {
    store: Store,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(job: &Job) -> Result<Self, String> {
        let numbers = [job.clients, job.processes, job.process, job.group, job.time_ms as usize];
        let names = ["--clients", "--processes", "--process", "--group", "--time-ms"];
        let mut command = std::env::current_exe().map(Command::new).map_err(unstarted)?;
        command.args(["postgres-clients", "--url", &job.url, "--store", job.store.name()]);
        for (name, number) in names.iter().zip(numbers) {
            command.arg(name).arg(number.to_string());
        }
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(unstarted)?;
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        Ok(Self { store: job.store, child, stdout })
    }

    fn begin(&mut self) -> Result<(), String> {
        let stdin = self.child.stdin.as_mut().expect("it was asked for");
        writeln!(stdin, "{GO}").map_err(|_| self.ended())
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(1..) => Ok(line),
            _ => Err(self.ended()),
        }
    }

    fn ended(&self) -> String {
        format!("a process of clients ended early, its words are above: store={}", self.store)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unstarted(error: io::Error) -> String {
    format!("this program can't be started again as a process of clients: {error}")
}
