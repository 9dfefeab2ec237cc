//! Reads and inflates a request body without ever holding more than the cap.
//!
//! The cap counts while bytes arrive and while they inflate, so a small frame that inflates to a gibibyte costs at most
//! `max_request_bytes`. All requests together draw on one [`Budget`].

use std::{
    io::{self, Read},
    sync::Arc,
};

use axum::body::{Body, Bytes};
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{intake::BYTES_PER_PERMIT, refusal::Refusal};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// From a `Content-Encoding` or `grpc-encoding` header; absent means none.
    pub(super) fn from_header(value: Option<&http::HeaderValue>) -> Option<Self> {
        let Some(value) = value else { return Some(Self::None) };
        let value = value.to_str().ok()?.trim();
        let named = |name: &str| value.eq_ignore_ascii_case(name);
        if value.is_empty() || named("identity") {
            Some(Self::None)
        } else if named("gzip") || named("x-gzip") {
            Some(Self::Gzip)
        } else if named("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

/// Window that a zstd frame may ask for: 32 MiB, the largest that common encoders use at their best level.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
const INFLATE_CHUNK_BYTES: usize = 64 << 10;

/// What one request holds of the bytes that all may hold together; given back when dropped.
pub(super) struct Budget {
    all: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(super) fn new(all: Arc<Semaphore>) -> Self {
        Self { all, held: None }
    }

    /// Makes room for `n_bytes` in all.
    fn reserve(&mut self, n_bytes: usize) -> Result<(), Refusal> {
        let wanted = n_bytes.div_ceil(BYTES_PER_PERMIT);
        let missing = wanted.saturating_sub(self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| Refusal::TooManyBytes)?;
        let more = Arc::clone(&self.all).try_acquire_many_owned(missing).map_err(|_| Refusal::TooManyBytes)?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }
}

/// The whole body, at most `limit` bytes of it. `check` sees what has arrived so far, to refuse early.
pub(super) async fn collect(
    mut body: Body,
    limit: usize,
    budget: &mut Budget,
    check: impl Fn(&[u8]) -> Result<(), Refusal>,
) -> Result<Vec<u8>, Refusal> {
    let mut collected = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Refusal::BrokenBody)?.into_data() else { continue };
        if collected.len() + data.len() > limit {
            discard(body, limit).await;
            return Err(Refusal::TooLarge { limit });
        }
        budget.reserve(collected.len() + data.len())?;
        collected.extend_from_slice(&data);
        check(&collected)?;
    }
    Ok(collected)
}

/// Reads on for a while, so that a sender that writes everything before it reads gets to see the refusal.
async fn discard(mut body: Body, limit: usize) {
    let mut n_bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        n_bytes += frame.data_ref().map_or(0, Bytes::len);
        if n_bytes > limit {
            return;
        }
    }
}

/// `body` inflated, at most `limit` bytes of it.
pub(super) fn inflate(
    body: Vec<u8>,
    compression: Compression,
    limit: usize,
    budget: &mut Budget,
) -> Result<Vec<u8>, Refusal> {
    match compression {
        Compression::None => Ok(body),
        // Nothing at all is an empty request in any encoding.
        _ if body.is_empty() => Ok(body),
        Compression::Gzip => read_all(MultiGzDecoder::new(&body[..]), body.len(), limit, budget),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(Refusal::Inflate)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(Refusal::Inflate)?;
            read_all(decoder, body.len(), limit, budget)
        }
    }
}

fn read_all(mut reader: impl Read, n_compressed: usize, limit: usize, budget: &mut Budget) -> Result<Vec<u8>, Refusal> {
    let mut inflated = Vec::with_capacity((n_compressed * 4).min(limit));
    loop {
        let start = inflated.len();
        budget.reserve(n_compressed + start + INFLATE_CHUNK_BYTES)?;
        inflated.resize(start + INFLATE_CHUNK_BYTES, 0);
        let n_read = match reader.read(&mut inflated[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            outcome => match outcome.map_err(Refusal::Inflate)? {
                0 => {
                    inflated.truncate(start);
                    return Ok(inflated);
                }
                n_read => n_read,
            },
        };
        inflated.truncate(start + n_read);
        if inflated.len() > limit {
            return Err(Refusal::TooLarge { limit });
        }
    }
}
