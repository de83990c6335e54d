//! A machine's memory in a file that libvirt restores, written by QEMU itself.
//!
//! libvirt would lead the memory through a pipe and a helper that syncs the file before it says that it is done: seconds in which the lab
//! stands still. So QEMU is handed the file, behind the header that libvirt expects (`virQEMUSaveHeader`, version 2, not compressed).

use crate::error::{IoContext, Result};
use crate::private;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Length of the header: magic, five numbers, fourteen unused ones.
const HEADER: usize = 16 + 4 * (5 + 14);

/// Of a whole image, and of one that is being written.
const WHOLE: &[u8; 16] = b"LibvirtQemudSave";
const PARTIAL: &[u8; 16] = b"LibvirtQemudPart";

/// A file that QEMU appends the memory to.
pub(super) struct Image {
    pub(super) file: File,
}

impl Image {
    /// Begins the file with the domain's description; until [`Image::finish`] it calls itself partial.
    pub(super) fn begin(path: &Path, domain: &str) -> Result<Self> {
        let begin = || {
            let mut file = private::create(path)?;
            let description = [domain.as_bytes(), b"\0"].concat();
            file.write_all(&header(description.len())?)?;
            file.write_all(&description)?;
            file.seek(SeekFrom::End(0))?;
            Ok::<_, std::io::Error>(Self { file })
        };
        begin().tried("begin the file of the machine's memory", path.display())
    }

    /// QEMU has written everything.
    pub(super) fn finish(self, path: &Path) -> Result<()> {
        self.file
            .write_all_at(WHOLE, 0)
            .tried("finish the file of the machine's memory", path.display())
    }
}

fn header(description: usize) -> std::io::Result<[u8; HEADER]> {
    let length = u32::try_from(description).map_err(std::io::Error::other)?;
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(PARTIAL);
    // Version, length of the description, whether it ran, compression, offset of a cookie: none.
    for (place, number) in header[16..].chunks_exact_mut(4).zip([2, length, 0, 0, 0]) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_behind_header_and_description() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let image = Image::begin(&path, "<domain/>").unwrap();
        (&image.file).write_all(b"MEMORY").unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(PARTIAL));
        image.finish(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..16], WHOLE);
        let number = |i: usize| u32::from_ne_bytes(bytes[16 + 4 * i..20 + 4 * i].try_into().unwrap());
        assert_eq!(
            [number(0), number(1), number(2), number(3), number(4)],
            [2, 10, 0, 0, 0]
        );
        assert_eq!(&bytes[HEADER..], b"<domain/>\0MEMORY");
    }
}
