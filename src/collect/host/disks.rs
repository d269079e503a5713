//! Local file systems and how full they are.
//!
//! sysinfo's disk list calls statvfs on whatever is mounted but NFS and CIFS, and on a FUSE, Ceph or 9P mount whose
//! server is gone that call never returns. One hung call would stop the whole agent, so the mounts are read here and
//! only file systems that answer from the kernel's memory are asked.
//!
//! mountinfo rather than /proc/mounts: it keeps the options of the file system apart from those of the mount. In a
//! service with `ProtectSystem=strict` every mount is read-only, while the file systems are not.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::snapshot::Disk;

/// File systems on local block devices.
const LOCAL: [&str; 14] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "nilfs2", "vfat",
    "exfat", "ntfs3", "reiserfs",
];

/// File systems that are not reported and that a path can safely pass through.
const PASSABLE: [&str; 8] = [
    "rootfs", "ramfs", "tmpfs", "devtmpfs", "overlay", "squashfs", "erofs", "autofs",
];

/// A storage plug-in can mount hundreds of volumes.
const MOST: usize = 64;

/// Every local file system, once each, by mount point.
pub(super) fn read() -> Vec<Disk> {
    let mountinfo = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mountinfo = String::from_utf8_lossy(&mountinfo);
    let mut disks: Vec<Disk> = local(&mountinfo).iter().filter_map(measure).collect();
    disks.sort_unstable_by(|a, b| a.mount.cmp(&b.mount));
    disks.truncate(MOST);
    disks
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone)]
struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    device_number: &'a str,
    point: Cow<'a, str>,
    filesystem: &'a str,
    device: Cow<'a, str>,
    /// Options of the file system, not of this mount of it.
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `27 1 254:0 / /data rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro`
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, superblock) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let (id, parent, device_number) = (mount.next()?, mount.next()?, mount.next()?);
        let point = unescape(mount.nth(1)?);
        let mut superblock = superblock.splitn(3, ' ');
        Some(Mount {
            id,
            parent,
            device_number,
            point,
            filesystem: superblock.next()?,
            device: unescape(superblock.next()?),
            options: superblock.next()?,
        })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|set| set == option)
    }

    /// Whether asking for `other` would not reach it, or might wait for a server: this mount lies over it, or it is
    /// of a kind that may hang and on the way.
    fn obstructs(&self, other: &Mount<'_>) -> bool {
        let covers = self.parent == other.id && self.point == other.point;
        let may_hang = !LOCAL.contains(&self.filesystem) && !PASSABLE.contains(&self.filesystem);
        covers || may_hang && Path::new(other.point.as_ref()).starts_with(self.point.as_ref())
    }
}

/// The local file systems; of several mounts of one device the one with the shortest path.
fn local(mountinfo: &str) -> Vec<Mount<'_>> {
    let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
    let mut local: BTreeMap<&str, &Mount<'_>> = BTreeMap::new();
    for mount in &mounts {
        if !LOCAL.contains(&mount.filesystem) || mounts.iter().any(|other| other.obstructs(mount)) {
            continue;
        }
        local
            .entry(mount.device_number)
            .and_modify(|known| {
                if mount.point.len() < known.point.len() {
                    *known = mount;
                }
            })
            .or_insert(mount);
    }
    local.into_values().cloned().collect()
}

fn measure(mount: &Mount<'_>) -> Option<Disk> {
    let space = rustix::fs::statvfs(mount.point.as_ref()).ok()?;
    let used = space.f_blocks.saturating_sub(space.f_bfree);
    // As df(1) counts: what is reserved for root is neither used nor available.
    let reachable = used.saturating_add(space.f_bavail);
    if reachable == 0 {
        return None;
    }
    // Since Linux 6.15 ext4 says emergency_ro or shutdown where it used to turn the file system read-only.
    let given_up = mount.has("emergency_ro") || mount.has("shutdown");
    Some(Disk {
        mount: mount.point.as_ref().to_owned(),
        device: mount.device.as_ref().to_owned(),
        filesystem: mount.filesystem.to_owned(),
        total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        used_percent: super::hundredths(100.0 * used as f64 / reachable as f64),
        read_only: mount.has("ro") || given_up,
        remounts_on_error: mount.has("errors=remount-ro") || given_up,
    })
}

/// The kernel writes space, tab, newline, backslash and # as `\040` and the like.
fn unescape(field: &str) -> Cow<'_, str> {
    if !field.contains('\\') {
        return Cow::Borrowed(field);
    }
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_file_systems_once_each_and_none_that_may_hang() {
        let mountinfo = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / ro,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
28 27 254:0 /var/lib/sideline /var/lib/sideline rw - ext4 /dev/vda1 rw,errors=remount-ro
29 27 0:25 / /tmp rw - tmpfs tmpfs rw,size=4k
30 27 7:1 / /snap/core/1 ro - squashfs /dev/loop1 ro
31 27 259:1 / /rec rw,noatime - xfs /dev/nvme0n1p1 rw,inode64
32 27 8:1 / /media/usb\\040stick rw - vfat /dev/sdb1 ro,errors=remount-ro
40 27 0:50 / /nas rw - nfs4 nas:/v rw,hard
41 40 8:16 / /nas/local rw - ext4 /dev/sdc1 rw
42 27 8:32 / /covered rw - ext4 /dev/sdd1 rw
43 42 0:51 / /covered rw - cifs //nas/v rw
44 27 0:52 / /mnt/s rw - fuse.sshfs host:/ rw
45 27 0:53 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/a
46 27 0:60 / /boot/efi rw - autofs systemd-1 rw
47 46 8:48 / /boot/efi rw - vfat /dev/sde1 rw
nonsense
48 27 0:61 / /short rw - ext4
";
        let seen: Vec<_> = local(mountinfo)
            .iter()
            .map(|mount| (mount.point.to_string(), mount.has("ro")))
            .collect();
        let expected = [
            ("/", false),
            ("/rec", false),
            ("/media/usb stick", true),
            ("/boot/efi", false),
        ];
        assert_eq!(seen, expected.map(|(point, ro)| (point.to_owned(), ro)));
    }

    #[test]
    fn escapes() {
        for (field, plain) in [
            ("/a", "/a"),
            ("/a\\040b\\011c\\134", "/a b\tc\\"),
            ("/a\\", "/a\\"),
            ("/a\\9zz", "/a\\9zz"),
            ("/a\\é", "/a\\é"),
            ("/a\\777", "/a\\777"),
        ] {
            assert_eq!(unescape(field), plain);
        }
    }
}
