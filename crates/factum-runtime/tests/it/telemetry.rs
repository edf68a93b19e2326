//! The telemetry of the bus: spans with OpenTelemetry's names, metrics for Prometheus.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{Arc, Mutex},
};

use factum_kernel::{CommandId, Metadata, Repository, RetryPolicy};
use factum_runtime::{
    AdmissionLayer, CommandRequest, CommandRouter, CommandTransaction, Commands, MetricsLayer,
    TracingLayer,
};
use factum_testing::{Fault, bank::Account};
use metrics_exporter_prometheus::PrometheusBuilder;
use tower::ServiceBuilder;
use tracing::{
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, Registry, layer::Context, prelude::*, registry::LookupSpan};

use crate::bench::{Bench, DEPOSIT, millis, open};

type Fields = BTreeMap<String, String>;

/// The fields of every span, in the order in which the spans began.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(u64, Fields)>>>);

struct Collect<'a>(&'a mut Fields);

impl Visit for Collect<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").trim_matches('"').into());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Collect(&mut fields));
        self.0.lock().unwrap().push((id.into_u64(), fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        let span = spans.iter_mut().rev().find(|(span, _)| *span == id.into_u64()).unwrap();
        values.record(&mut Collect(&mut span.1));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

/// One command of each kind: stored, rejected, replayed, refused, failed.
async fn one_of_each<S>(bench: &Bench, layers: S)
where
    S: tower::Layer<CommandRouter>,
    S::Service: tower::Service<
            CommandRequest,
            Response = factum_runtime::CommandResponse,
            Error = factum_runtime::BoxError,
        > + Clone,
{
    let accounts = bench.accounts();
    let router = CommandRouter::new().with(accounts.clone());
    let commands = Commands::new(router, &bench.kernel).named::<Account>().layer(layers);
    let once = CommandId::derived("17", "deposit");
    commands.dispatch::<Account>("ada", open("ada")).await.unwrap();
    commands.dispatch::<Account>("bob", DEPOSIT).await.unwrap_err();
    for _ in 0..2 {
        let sent = commands.dispatch_once::<Account>("ada", once, DEPOSIT, Metadata::new());
        sent.await.unwrap();
    }
    let eve = Metadata::new().with_user("eve");
    commands.dispatch_with::<Account>("ada", DEPOSIT, eve).await.unwrap_err();
    accounts.shutdown(millis(1)).await;
    commands.dispatch::<Account>("ada", DEPOSIT).await.unwrap_err();
}

fn not_eve() -> AdmissionLayer {
    AdmissionLayer::new(|request| match request.metadata.user.as_deref() {
        Some("eve") => Err("not eve".into()),
        _ => Ok(()),
    })
}

#[test]
fn a_span_tells_what_came_of_a_command_and_a_no_is_no_error() {
    let spans = Spans::default();
    let bench = Bench::new();
    let layers = ServiceBuilder::new().layer(TracingLayer::new()).layer(not_eve());
    let subscriber = Registry::default().with(spans.clone());
    tracing::subscriber::with_default(subscriber, || block_on(one_of_each(&bench, layers)));
    let spans: Vec<Fields> = spans.0.lock().unwrap().iter().map(|(_, it)| it.clone()).collect();
    let all = |name: &str| -> Vec<_> {
        spans.iter().map(|span| span.get(name).map_or("-", String::as_str)).collect()
    };
    let outcomes = ["stored", "rejected", "stored", "replayed", "refused", "failed"];
    assert_eq!(all("factum.command.outcome"), outcomes);
    assert_eq!(all("otel.status_code"), ["-", "-", "-", "-", "-", "ERROR"]);
    assert_eq!(all("error.type"), ["-", "-", "-", "-", "-", "closed"]);
    assert_eq!(all("factum.stream.version"), ["1", "-", "2", "2", "-", "-"]);
    assert_eq!(all("factum.log.position"), ["1", "-", "2", "2", "-", "-"]);
    assert_eq!(all("factum.aggregate.key")[..2], ["ada", "bob"]);
    assert_eq!(all("otel.name")[0], "account account.open");
    assert_eq!(all("factum.command.name")[1], "account.deposit");
    assert_eq!((all("otel.kind")[0], all("factum.aggregate.category")[0]), ("internal", "account"));
    assert_eq!(all("factum.command.id")[2], CommandId::derived("17", "deposit").to_string());
    assert_eq!(all("factum.command.id"), all("factum.correlation.id"));
}

#[test]
fn keys_are_left_out_of_spans_where_they_are_private() {
    let spans = Spans::default();
    let layers = ServiceBuilder::new().layer(TracingLayer::new().without_keys()).layer(not_eve());
    let subscriber = Registry::default().with(spans.clone());
    tracing::subscriber::with_default(subscriber, || block_on(one_of_each(&Bench::new(), layers)));
    let spans = spans.0.lock().unwrap();
    assert_eq!(spans.len(), 6);
    assert!(spans.iter().all(|(_, fields)| !fields.values().any(|value| value == "ada")));
}

/// The Prometheus exporter without its listener, because an application serves the text itself.
#[test]
fn prometheus_sees_counts_and_durations_and_never_a_key() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let bench = Bench::new();
        let metrics = MetricsLayer::new(bench.kernel.clock().clone());
        block_on(one_of_each(&bench, ServiceBuilder::new().layer(metrics).layer(not_eve())));
    });
    let text = handle.render();
    let counted = [
        ("open", "stored"),
        ("deposit", "rejected"),
        ("deposit", "stored"),
        ("deposit", "replayed"),
        ("deposit", "refused"),
        ("deposit", "failed"),
    ];
    for (command, outcome) in counted {
        let labels =
            format!(r#"category="account",command="account.{command}",outcome="{outcome}""#);
        let line = format!("factum_commands_total{{{labels}}} 1");
        assert!(text.contains(&line), "{line} is not in:\n{text}");
    }
    for line in [
        r#"factum_command_failures_total{category="account",error="closed"} 1"#,
        r#"factum_commands_active{category="account"} 0"#,
        "# TYPE factum_command_duration_seconds",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert!(!text.contains("ada") && !text.contains("bob"), "{text}");
}

/// Transactions have a trace and metrics. They once had none.
#[test]
fn a_transaction_has_a_span_that_names_its_steps_and_is_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let spans = Spans::default();
    let subscriber = Registry::default().with(spans.clone());
    let transfer = || async {
        let bench = Bench::new();
        let accounts = Repository::<Account>::new(bench.kernel.clone());
        let layers = ServiceBuilder::new()
            .layer(TracingLayer::new())
            .layer(MetricsLayer::new(bench.kernel.clock().clone()));
        let commands = Commands::new(CommandRouter::new(), &bench.kernel);
        let commands = commands.named::<Account>().layer(layers);
        for (key, command) in [("bob", DEPOSIT), ("ada", open("ada"))] {
            let both = CommandTransaction::new(bench.kernel.clone(), RetryPolicy::new());
            let both = both.command(&accounts, "ada", open("ada"));
            let both = both.command(&accounts, key, command);
            let request = CommandRequest::transaction(commands.id(), both);
            drop(commands.send(request).await.unwrap());
        }
        let one = CommandTransaction::new(bench.kernel.clone(), RetryPolicy::new());
        let one = one.command(&accounts, "ada", open("ada"));
        drop(commands.send(CommandRequest::transaction(commands.id(), one)).await.unwrap());
    };
    metrics::with_local_recorder(&recorder, || {
        tracing::subscriber::with_default(subscriber, || block_on(transfer()));
    });
    let spans: Vec<Fields> = spans.0.lock().unwrap().iter().map(|(_, it)| it.clone()).collect();
    let all = |name: &str| -> Vec<_> {
        spans.iter().map(|span| span.get(name).map_or("-", String::as_str)).collect()
    };
    assert_eq!(all("otel.name"), ["$transaction transaction"; 3]);
    assert_eq!(all("factum.aggregate.category"), ["$transaction"; 3]);
    assert_eq!(all("factum.aggregate.key"), ["ada bob", "ada ada", "ada"]);
    assert_eq!(all("factum.command.steps")[0], "account.open account.deposit");
    assert_eq!(all("factum.command.outcome"), ["rejected", "rejected", "stored"]);
    assert_eq!(all("factum.log.position"), ["-", "-", "1"]);
    let text = handle.render();
    for (outcome, count) in [("rejected", 2), ("stored", 1)] {
        let labels =
            format!(r#"category="$transaction",command="transaction",outcome="{outcome}""#);
        let line = format!("factum_commands_total{{{labels}}} {count}");
        assert!(text.contains(&line), "{line} is not in:\n{text}");
    }
}

/// A caller that leaves is counted too, and the gauge returns to zero.
#[test]
fn a_dropped_command_is_counted_as_dropped_and_timed() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let bench = Bench::new();
            let accounts = bench.accounts();
            accounts.ask("ada", open("ada")).await.unwrap();
            let commands = Commands::new(CommandRouter::new().with(accounts), &bench.kernel);
            let commands = commands.layer(MetricsLayer::new(bench.kernel.clock().clone()));
            bench.faulty.next_append(Fault::Delay(millis(1_500)));
            let dispatched = commands.dispatch::<Account>("ada", DEPOSIT);
            tokio::select! {
                _ = dispatched => panic!("the clock stands still"),
                () = bench.clock.until_sleeping(1) => {}
            }
            // The command has begun and not ended. The gauge is zero again, because the future is
            // gone.
            bench.faulty.next_append(Fault::Delay(millis(1_500)));
            let slow = commands.dispatch::<Account>("ada", DEPOSIT);
            let (slow, ()) = tokio::join!(slow, async {
                bench.clock.advance(millis(1_500));
                while bench.balance("ada").await.1 < 2 {
                    tokio::task::yield_now().await;
                }
                bench.clock.until_sleeping(1).await;
                assert!(
                    handle.render().contains(r#"factum_commands_active{category="account"} 1"#)
                );
                bench.clock.advance(millis(1_500));
            });
            slow.unwrap();
        });
    });
    let text = handle.render();
    let labels =
        |outcome| format!(r#"category="account",command="AccountCommand",outcome="{outcome}""#);
    for line in [
        format!("factum_commands_total{{{}}} 1", labels("dropped")),
        format!("factum_commands_total{{{}}} 1", labels("stored")),
        format!("factum_command_duration_seconds_sum{{{}}} 3", labels("stored")),
        r#"factum_commands_active{category="account"} 0"#.into(),
    ] {
        assert!(text.contains(&line), "{line} is not in:\n{text}");
    }
}
