//! Brokers that are spoken to over TLS, and let in only whom they know.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use semel_brokers::{
    KafkaSink, KafkaSinkConfig, KafkaSource, KafkaSourceConfig, KafkaUrl, RabbitMqDestination,
    RabbitMqSink, RabbitMqSinkConfig, RabbitMqSource, RabbitMqSourceConfig, examine_kafka,
};
use semel_core::{Sink, SinkError, Source, SourceError};
use semel_tests::conformance::broker::{DESTINATION, last_positions, receive_at_least, row};
use semel_tests::servers::certificates::Certificates;
use semel_tests::servers::free_ports;
use semel_tests::servers::kafka::{Kafka, Secured};
use semel_tests::servers::rabbitmq::RabbitMq;

const NAME: &str = "orders";

/// A message goes out and comes back.
async fn passes(source: &impl Source, sink: &impl Sink) -> Result<()> {
    sink.publish(&[row(0, None)]).await.remove(0)?;
    let deliveries = receive_at_least(source, 1).await?;
    source.acknowledge(&last_positions(&deliveries)).await?;
    source.close().await;
    sink.close().await;
    Ok(())
}

/// Neither is let in, and both say why.
async fn shut_out(source: &impl Source, sink: &impl Sink, why: &str) -> Result<()> {
    let received = source.receive(1).await.unwrap_err();
    let published = sink.publish(&[row(0, None)]).await.remove(0).unwrap_err();
    source.close().await;
    sink.close().await;
    ensure!(
        matches!(received, SourceError::Unavailable(_)),
        "{received}"
    );
    ensure!(
        matches!(published, SinkError::Unavailable(_)),
        "{published}"
    );
    for error in [received.to_string(), published.to_string()] {
        ensure!(error.contains(why), "{error}");
    }
    Ok(())
}

fn kafka(url: &str) -> Result<(KafkaSource, KafkaSink)> {
    let url: KafkaUrl = url.parse()?;
    let source = KafkaSource::new(KafkaSourceConfig {
        cluster: url.cluster.clone(),
        group: url.group,
        instance: None,
        topics: vec![NAME.to_owned()],
        redelivery: KafkaSourceConfig::DEFAULT_REDELIVERY,
    });
    let sink = KafkaSink::new(KafkaSinkConfig {
        cluster: url.cluster,
        destinations: BTreeMap::from([(DESTINATION.to_owned(), NAME.to_owned())]),
    });
    Ok((source, sink))
}

/// `USER:PASSWORD@` as a URL has it.
fn kafka_login(password: &str) -> String {
    let encoded = password
        .replace('@', "%40")
        .replace('/', "%2F")
        .replace(':', "%3A");
    format!("{}:{encoded}@", Secured::USER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_lets_in_whom_it_knows() -> Result<()> {
    let broker = Kafka::start_secured().await?;
    broker.create_topic(NAME, 1).await?;
    let secured = broker.secured().expect("it was started with them");
    let certificates = &secured.certificates;
    let ca = format!("ca={}", certificates.ca().display());
    let address = format!("127.0.0.1:{}", secured.login_port);
    let login = kafka_login(Secured::PASSWORD);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let url =
            format!("kafka+ssl://{login}{address}?{ca}&mechanism={mechanism}&group={mechanism}");
        let (source, sink) = kafka(&url)?;
        passes(&source, &sink).await?;
    }
    let mutual = format!("kafka+ssl://127.0.0.1:{}?{ca}", secured.mutual_port);
    let known = format!("{mutual}&{}&group=mutual", shown(certificates));
    let (source, sink) = kafka(&known)?;
    passes(&source, &sink).await?;
    let cluster = known.parse::<KafkaUrl>()?.cluster;
    let survey = examine_kafka(&cluster, &[]).await;
    ensure!(
        survey.findings.iter().any(|it| it.subject == "broker"),
        "{survey:?}"
    );

    let stranger = Certificates::new()?;
    let forged = format!(
        "kafka+ssl://{login}{address}?ca={}",
        stranger.ca().display()
    );
    let imposter = kafka_login("not it");
    let imposter = format!("kafka+ssl://{imposter}{address}?{ca}&mechanism=SCRAM-SHA-512");
    let renamed = format!("kafka+ssl://{login}{address}?{ca}").replace("127.0.0.1", "localhost");
    for (url, why) in [
        (imposter, "Authentication failed"),
        (forged, "certificate verify failed"),
        (renamed, "certificate verify failed"),
        // The broker may hang up before the client has read why.
        (mutual, ""),
    ] {
        let (source, sink) = kafka(&url)?;
        shut_out(&source, &sink, why)
            .await
            .with_context(|| url.clone())?;
        let cluster = url.parse::<KafkaUrl>()?.cluster;
        let survey = examine_kafka(&cluster, &[]).await;
        let findings: Vec<_> = survey.findings.iter().map(ToString::to_string).collect();
        ensure!(findings.concat().contains(why), "{url}: {findings:?}");
    }
    Ok(())
}

/// The parameters with which a client shows its certificate.
fn shown(certificates: &Certificates) -> String {
    let parameter = |name: &str, path: &Path| format!("{name}={}", path.display());
    [
        parameter("certificate", &certificates.certificate()),
        parameter("key", &certificates.key()),
    ]
    .join("&")
}

fn rabbitmq(url: &str) -> Result<(RabbitMqSource, RabbitMqSink)> {
    let source = RabbitMqSource::new(RabbitMqSourceConfig {
        url: url.parse()?,
        queues: vec![NAME.to_owned()],
        redelivery: None,
    });
    let queue = RabbitMqDestination {
        exchange: String::new(),
        routing_key: NAME.to_owned(),
    };
    let sink = RabbitMqSink::new(RabbitMqSinkConfig {
        url: url.parse()?,
        destinations: BTreeMap::from([(DESTINATION.to_owned(), queue)]),
    });
    Ok((source, sink))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_lets_in_whom_it_knows() -> Result<()> {
    let certificates = Certificates::new()?;
    let port = free_ports(&[0])?;
    let setting = |name: &str, path: &Path| format!("ssl_options.{name} = {}", path.display());
    let settings = [
        format!("listeners.ssl.local = 127.0.0.1:{port}"),
        setting("cacertfile", &certificates.ca()),
        setting("certfile", &certificates.certificate()),
        setting("keyfile", &certificates.key()),
        "ssl_options.verify = verify_peer".to_owned(),
        "ssl_options.fail_if_no_peer_cert = true".to_owned(),
    ];
    let broker = RabbitMq::start_with(&settings.each_ref().map(String::as_str)).await?;
    broker.declare_queue(NAME).await?;
    let url = format!("amqps://guest:guest@127.0.0.1:{port}");
    let ca = format!("ca={}", certificates.ca().display());
    let shown = shown(&certificates);
    let (source, sink) = rabbitmq(&format!("{url}?{ca}&{shown}"))?;
    passes(&source, &sink).await?;

    let stranger = Certificates::new()?;
    let forged = format!("{url}?ca={}&{shown}", stranger.ca().display());
    let renamed = format!("{url}?{ca}&{shown}").replace("127.0.0.1", "localhost");
    let imposter = format!("{url}?{ca}&{shown}").replace("guest:guest", "guest:other");
    for (url, why) in [
        // The server may hang up before the client has read why.
        (format!("{url}?{ca}"), ""),
        (forged, "UnknownIssuer"),
        (renamed, "not valid for name"),
        (imposter, "ACCESS"),
    ] {
        let (source, sink) = rabbitmq(&url)?;
        shut_out(&source, &sink, why)
            .await
            .with_context(|| url.clone())?;
    }
    Ok(())
}
