//! Pixels to a PNG file in memory.
//!
//! `plotters` writes PNG only to a path, so the four chunks that a file needs are put together here, with
//! `flate2` for the compression and the checksums. Knows nothing of what the pixels show.

use std::io::{self, Write};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

/// Every PNG begins with these bytes.
pub(super) const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// The file of an image of 8-bit RGB pixels, row by row.
pub(super) fn encode(rgb: &[u8], width: u32, height: u32) -> io::Result<Vec<u8>> {
    let mut header = Vec::with_capacity(13);
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    // Eight bits a channel, true colour, and the only compression, filter method and order without interlace.
    header.extend_from_slice(&[8, 2, 0, 0, 0]);

    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    for row in rgb.chunks(width as usize * 3) {
        // Filter type 0: plots are flat colour, which compresses well as it is.
        packed.write_all(&[0])?;
        packed.write_all(row)?;
    }

    let mut file = SIGNATURE.to_vec();
    push_chunk(&mut file, b"IHDR", &header);
    push_chunk(&mut file, b"IDAT", &packed.finish()?);
    push_chunk(&mut file, b"IEND", &[]);
    Ok(file)
}

fn push_chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut checksum = Crc::new();
    checksum.update(kind);
    checksum.update(data);
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    file.extend_from_slice(kind);
    file.extend_from_slice(data);
    file.extend_from_slice(&checksum.sum().to_be_bytes());
}
