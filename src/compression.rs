//! Compressed files, told by their first bytes.
//!
//! Knows gzip (of one or many members), zstd and xz. Does not know what is inside.

use std::io::{self, BufRead, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// The plain bytes of `source`, to be read in large pieces.
pub(crate) fn open(mut source: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    // A pipe may give its first bytes one by one, so they are asked for until they are there.
    let mut start = Vec::new();
    source.by_ref().take(XZ.len() as u64).read_to_end(&mut start)?;
    let (gzip, zstd, xz) = (start.starts_with(GZIP), start.starts_with(ZSTD), start.starts_with(XZ));
    let whole = Cursor::new(start).chain(source);
    Ok(if gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if zstd {
        Box::new(zstd::stream::read::Decoder::with_buffer(whole)?)
    } else if xz {
        Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(whole))
    } else {
        Box::new(whole)
    })
}
