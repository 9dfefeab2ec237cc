//! A frame of 32 KB that inflates to a gibibyte is refused on both transports, and memory stays bounded.
//!
//! Alone in its file, because it watches the peak of the whole process.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "a test may panic; helpers take what tests hold"
)]

mod common;

use common::{Behaviour, LOGS_CALL, Servers, framed, send, status_of};

/// A zstd frame of 8,192 blocks, each "128 KiB of zero bytes": 32 KiB that stand for 1 GiB.
fn zstd_bomb() -> Vec<u8> {
    const BLOCK_BYTES: u32 = 128 << 10;
    const N_BLOCKS: u32 = 8192;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    for block in 0..N_BLOCKS {
        let is_last = u32::from(block + 1 == N_BLOCKS);
        let run_of_one_byte = 1 << 1;
        frame.extend_from_slice(&(is_last | run_of_one_byte | BLOCK_BYTES << 3).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

/// Gzip cannot do better than about 1:1000, so its bomb is larger; members in a row inflate one after the other.
fn gzip_bomb() -> Vec<u8> {
    let member = common::gzip(&vec![0; 64 << 20]);
    member.repeat(16)
}

/// Most memory this process has ever held, in bytes; `None` where the system does not tell.
fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[test]
fn a_frame_that_inflates_to_a_gibibyte_is_refused_with_bounded_memory() {
    let (zstd_bomb, gzip_bomb) = (zstd_bomb(), gzip_bomb());
    assert!(zstd_bomb.len() < 33_000);
    let mut inflated = zstd::stream::read::Decoder::new(&zstd_bomb[..]).unwrap();
    assert_eq!(std::io::copy(&mut inflated, &mut std::io::sink()).unwrap(), 1 << 30, "the bomb is armed");

    let servers = Servers::start(Behaviour::Accept);
    let before = peak_resident_bytes();
    for (encoding, bomb) in [("zstd", &zstd_bomb), ("gzip", &gzip_bomb)] {
        for content_type in ["application/x-protobuf", "application/json"] {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            let answer = send("POST", &servers.url("/v1/logs"), &headers, bomb);
            assert_eq!(answer.status, 413, "{encoding}");
        }
        let headers = [("content-type", "application/grpc"), ("grpc-encoding", encoding)];
        let response = servers.raw_call(LOGS_CALL, &headers, framed(1, bomb));
        assert_eq!(status_of(&response).code(), tonic::Code::ResourceExhausted, "{encoding}");
    }
    assert!(servers.pipeline.take().is_empty());
    match (before, peak_resident_bytes()) {
        (Some(before), Some(after)) => {
            // The cap is 64 MiB; a vector that doubles and the window make it at most three times that.
            assert!(after - before < 192 << 20, "{} MiB more than before", (after - before) >> 20);
        }
        _ => eprintln!("skipped: this system does not tell the peak of resident memory"),
    }
}
