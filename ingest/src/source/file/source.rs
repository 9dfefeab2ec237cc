//! Files as a [`Source`]: a reader thread behind a short queue.

use std::{pin::pin, sync::Arc};

use faultline_core::{Ack, Batch, BoxFuture, Classified, Delivery, Domain, Outlet, Source, SourceError};

use super::{FileBatch, FileReader, FilesConfig};
use crate::{decode::OtlpSignal, source::counters};

/// Replays files as a [`Source`].
#[derive(Debug)]
pub struct FileSource {
    config: FilesConfig,
}

impl FileSource {
    /// Over the files of `config`, in order.
    #[must_use]
    pub fn new(config: FilesConfig) -> Self {
        Self { config }
    }
}

/// Batches read ahead of the pipeline.
const READ_AHEAD: usize = 2;

impl Source for FileSource {
    fn name(&self) -> &'static str {
        "file"
    }

    fn run<'a>(
        self: Box<Self>,
        outlet: Arc<dyn Outlet>,
        stop: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<(), SourceError>>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let (sender, mut batches) = tokio::sync::mpsc::channel(READ_AHEAD);
            // A thread of its own, because standard input can block for ever and must not hold up a shutdown. It ends
            // when the receiver is gone.
            let config = self.config;
            let failed = |operation: &str, domain, cause| SourceError {
                name: "file".into(),
                operation: operation.into(),
                domain,
                cause: Some(cause),
            };
            std::thread::Builder::new()
                .name("file-source".into())
                .spawn(move || {
                    for path in &config.paths {
                        let reader = match FileReader::open(path, &config) {
                            Ok(reader) => reader,
                            Err(error) => {
                                let _ = sender.blocking_send(Err(error));
                                return;
                            }
                        };
                        for batch in reader {
                            let is_last = batch.is_err();
                            if sender.blocking_send(batch).is_err() || is_last {
                                return;
                            }
                        }
                    }
                })
                .map_err(|cause| failed("starting the reader thread", Domain::External, Box::new(cause)))?;
            let mut stop = pin!(stop);
            loop {
                let batch = tokio::select! {
                    () = &mut stop => return Ok(()),
                    batch = batches.recv() => batch,
                };
                let FileBatch { batch, rejects, position } = match batch {
                    None => return Ok(()),
                    Some(Err(error)) => {
                        return Err(failed("reading ingest.files.paths", error.domain(), Box::new(error)));
                    }
                    Some(Ok(batch)) => batch,
                };
                let signal = match &batch {
                    Batch::Logs(_) => OtlpSignal::Logs,
                    Batch::Spans(_) => OtlpSignal::Traces,
                    Batch::Metrics(_) => OtlpSignal::Metrics,
                };
                let (n_records, n_rejected) = (batch.n_records() as u64, rejects.len() as u64);
                // The position is enough: a file can be read again.
                let delivery = Delivery { batch, rejects, position, ack: Ack::ignored() };
                tokio::select! {
                    () = &mut stop => return Ok(()),
                    sent = outlet.send(delivery) => if sent.is_err() { return Ok(()) },
                }
                counters::accepted(signal, "file", n_records);
                counters::refused(signal, "file", n_rejected);
            }
        })
    }
}
