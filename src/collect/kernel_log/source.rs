//! What a kernel log is read from, and the folder that shows when another takes its place.

use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::domain::snapshot::Position;

/// The kernel's log.
const KMSG: &str = "/dev/kmsg";

/// What kind of source a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// /dev/kmsg: a read yields one record.
    Device,
    /// A read yields what somebody has written.
    Fifo,
    /// Grows, is rotated, is truncated.
    File,
}

/// An open source.
pub(super) struct Source {
    pub(super) kind: Kind,
    /// Device number and inode.
    pub(super) identity: (u64, u64),
    handle: Handle,
}

enum Handle {
    Polled(AsyncFd<OwnedFd>),
    /// epoll knows no regular files; their folder's inotify tells of them.
    Plain(OwnedFd),
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        // Nonblocking, for opening a FIFO would wait for its writer.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if let Some(kmsg) = handed_over(path)? {
            return Ok(Source {
                kind: Kind::Device,
                identity: identity(&rustix::fs::stat(path)?),
                handle: Handle::Polled(polled(kmsg)?),
            });
        }
        let mut fd = rustix::fs::open(path, flags | OFlags::RDONLY, Mode::empty())?;
        let mut stat = rustix::fs::fstat(&fd)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => Kind::Device,
            FileType::Fifo => {
                // Being a writer too, we never see the end when the last writer closes. The first handle
                // stays open meanwhile: a writer must not find the FIFO without a reader.
                let both = rustix::fs::open(path, flags | OFlags::RDWR, Mode::empty())?;
                stat = rustix::fs::fstat(&both)?;
                fd = both;
                Kind::Fifo
            }
            FileType::RegularFile => Kind::File,
            FileType::Directory
            | FileType::BlockDevice
            | FileType::Socket
            | FileType::Symlink
            | FileType::Unknown => return Err(unfit()),
        };
        let handle = match kind {
            Kind::File => Handle::Plain(fd),
            // Devices that can't be polled (/dev/null) are no logs.
            Kind::Device | Kind::Fifo => Handle::Polled(polled(fd).map_err(|_| unfit())?),
        };
        Ok(Source {
            kind,
            identity: identity(&stat),
            handle,
        })
    }

    /// Reads what is there: `AGAIN` when there is nothing, 0 at the end of a file.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        match self.kind {
            Kind::Device | Kind::Fifo => rustix::io::read(self, buffer),
            Kind::File => rustix::io::pread(self, buffer, offset),
        }
    }

    /// Waits until there may be something to read; for ever where only the folder can tell.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match &self.handle {
            Handle::Polled(fd) => {
                // All of it is read after this, so that nothing is missed.
                fd.readable().await?.clear_ready();
                Ok(())
            }
            Handle::Plain(_) => pending().await,
        }
    }

    /// The size of a file, in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        let size = rustix::fs::fstat(self)?.st_size;
        Ok(u64::try_from(size).unwrap_or(0))
    }

    /// Whether the path now names something else. A file that was moved away is read on until its
    /// successor is there; one that was deleted is an error.
    pub(super) fn is_replaced(&self, path: &Path) -> io::Result<bool> {
        match rustix::fs::stat(path) {
            Ok(stat) => Ok(identity(&stat) != self.identity),
            Err(Errno::NOENT) if 0 < rustix::fs::fstat(self)?.st_nlink => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// How far a file has been read, to go on there after a restart.
    pub(super) fn position(&self, offset: u64) -> Option<Position> {
        let (dev, inode) = self.identity;
        (self.kind == Kind::File).then_some(Position::File { dev, inode, offset })
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.handle {
            Handle::Polled(fd) => fd.get_ref().as_fd(),
            Handle::Plain(fd) => fd.as_fd(),
        }
    }
}

/// The kernel's log where it is standard input already: the unit opens it for an agent that may not do so itself.
fn handed_over(path: &Path) -> io::Result<Option<OwnedFd>> {
    let input = io::stdin();
    let stat = rustix::fs::fstat(&input)?;
    if path != Path::new(KMSG) || !is_kmsg(&stat) {
        return Ok(None);
    }
    let fd = input.as_fd().try_clone_to_owned()?;
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    // From its first record, as if it had just been opened: a reload shares the place of the reader before it.
    rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    Ok(Some(fd))
}

/// By its number (Documentation/admin-guide/devices.txt), because the path may be covered by now.
fn is_kmsg(stat: &Stat) -> bool {
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    device && stat.st_rdev == rustix::fs::makedev(1, 11)
}

#[expect(
    deprecated,
    reason = "the successor is unsafe, for handles that may change under it; these own one and keep it"
)]
fn polled<T: AsRawFd + AsFd>(owner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(owner, Interest::READABLE)
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn unfit() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "kernel_log.path must name /dev/kmsg, or a file or FIFO that holds a kernel log",
    )
}

/// The folder that holds a log: it shows files that come and go, and, once watched, the file that grows.
pub(super) struct Folder {
    name: Option<OsString>,
    inotify: io::Result<AsyncFd<Inotify>>,
    folder: Option<WatchDescriptor>,
    file: Option<WatchDescriptor>,
}

impl Folder {
    pub(super) fn watch(path: &Path) -> Self {
        let mut folder = None;
        let inotify = watched_folder(path).and_then(|(inotify, watch)| {
            folder = Some(watch);
            polled(inotify)
        });
        Folder {
            name: path.file_name().map(Into::into),
            inotify,
            folder,
            file: None,
        }
    }

    /// Shows from now on when the file at `path` grows, instead of the one before.
    pub(super) fn watch_file(&mut self, path: &Path) -> io::Result<()> {
        let inotify = match &self.inotify {
            Ok(inotify) => inotify.get_ref(),
            Err(error) => return Err(io::Error::new(error.kind(), error.to_string())),
        };
        if let Some(before) = self.file.take() {
            // Fails where the file is gone, and the watch with it.
            let _gone = inotify.watches().remove(before);
        }
        let mask = WatchMask::MODIFY | WatchMask::ATTRIB | WatchMask::MOVE_SELF;
        self.file = Some(inotify.watches().add(path, mask)?);
        Ok(())
    }

    /// Waits until the path may name something else, or its file has grown; for ever where the folder
    /// can't be watched. Fails when the folder itself is gone.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let Ok(inotify) = &mut self.inotify else {
            return pending().await;
        };
        let mut buffer = [0; 1024];
        loop {
            let mut guard = inotify.readable_mut().await?;
            let mut ours = false;
            while let Ok(events) =
                guard.try_io(|inotify| inotify.get_mut().read_events(&mut buffer))
            {
                for event in events? {
                    if event.mask.contains(EventMask::Q_OVERFLOW) {
                        ours = true;
                    } else if Some(&event.wd) == self.folder.as_ref() {
                        if event.name.is_none() {
                            return Err(io::ErrorKind::NotFound.into());
                        }
                        ours |= event.name == self.name.as_deref();
                    } else {
                        ours |= Some(&event.wd) == self.file.as_ref();
                    }
                }
            }
            if ours {
                return Ok(());
            }
        }
    }
}

fn watched_folder(path: &Path) -> io::Result<(Inotify, WatchDescriptor)> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    let mask = WatchMask::CREATE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR;
    let inotify = Inotify::init()?;
    let watch = inotify.watches().add(folder, mask)?;
    Ok((inotify, watch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_log_is_taken_for_it() {
        for (path, wanted) in [
            (KMSG, true),
            ("/dev/null", false),
            ("/proc/self/comm", false),
        ] {
            // Where there is no such device, there is nothing to be told apart.
            if let Ok(stat) = rustix::fs::stat(path) {
                assert_eq!(is_kmsg(&stat), wanted, "{path}");
            }
        }
        // Whatever standard input is, another path is opened by its name.
        assert!(handed_over(Path::new("/dev/null")).unwrap().is_none());
    }
}
