//! Lines as kernels and drivers of all ages write them, and what each means.

pub(super) const GPU: &[(&str, &str)] = &[
    (
        "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout",
        "xid 119 0000:9b:00 by 2024380",
    ),
    (
        "NVRM: Xid (PCI:0000:38:00): 13, pid='<unknown>', name=<unknown>, Graphics",
        "xid 13 0000:38:00",
    ),
    (
        "NVRM: Xid (0000:03:00): 14, Channel 00000001",
        "xid 14 0000:03:00",
    ),
    (
        "NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:00): 31, pid=7, name=x, Ch",
        "xid 31 0000:01:00 by 7",
    ),
    (
        "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 31, pid=7, name=x, Ch",
        "xid 31 0000:01:00 by 7",
    ),
    (
        "NVRM: Xid (PCI:00000000:0A:00.0): 79, GPU has fallen off the bus.",
        "xid 79 0000:0a:00",
    ),
    (
        "NVRM: Xid (PCI:0000:0a:00): 62, pid=1, name=x, Received signal from GSP that PMU has halted.",
        "xid 62 0000:0a:00 by 1",
    ),
    (
        "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
        "xid 154 0008:01:00",
    ),
    ("NVRM: Xid (PCI:00010000:0a:1f): 48", "xid 48 10000:0a:1f"),
    (
        "NVRM: GPU 0000:91:00.0: GPU has fallen off the bus.",
        "gpu fell off 0000:91:00",
    ),
    (
        "NVRM: GPU at PCI:0000:3b:00 has fallen off the bus.",
        "gpu fell off 0000:3b:00",
    ),
    (
        "NVRM: The NVIDIA GPU 0000:05:00.0\nNVRM: (PCI ID: 10de:1eb8) installed in this system has\nNVRM: fallen off the bus and is not responding to commands.",
        "gpu fell off 0000:05:00",
    ),
    (
        "NVRM: fallen off the bus and is not responding to commands.",
        "gpu fell off unnamed",
    ),
    (
        "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x24:0xffff:1220)",
        "gpu init failed 0000:01:00",
    ),
    (
        "NVRM: RmInitAdapter failed! (0x26:0xffff:1097)",
        "gpu init failed unnamed",
    ),
    (
        "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:9b:00 (printing 1 of every 30).  The GPU likely needs to be reset.",
        "gpu firmware 0000:9b:00",
    ),
    (
        "NVRM: GPU0 _kgspRpcGspEventPmuHalted: Received signal from GSP that PMU has halted.",
        "gpu firmware unnamed",
    ),
    (
        "NVRM: GPU0 kgspHealthCheck_TU102: GSP-CrashCat Report",
        "gpu firmware unnamed",
    ),
    (
        "NVRM: GPU0 RmInitAdapter: Cannot initialize GSP firmware RM",
        "gpu firmware unnamed",
    ),
    (
        "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 22:55:48 UTC 2024",
        "gpu driver loaded",
    ),
    (
        "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65",
        "gpu driver loaded",
    ),
];

pub(super) const STORAGE: &[(&str, &str)] = &[
    (
        "blk_update_request: I/O error, dev sda, sector 1 op 0x0:(READ) flags 0x0",
        "disk io sda",
    ),
    ("end_request: I/O error, dev sda, sector 1", "disk io sda"),
    (
        "I/O error, dev nvme0n1, sector 128 op 0x1:(WRITE) flags 0x800",
        "disk io nvme0n1",
    ),
    (
        "critical medium error, dev sda, sector 1",
        "disk medium sda",
    ),
    (
        "blk_update_request: critical medium error, dev sda, sector 1",
        "disk medium sda",
    ),
    ("timeout error, dev sda, sector 1", "disk io sda"),
    ("device offline error, dev sdb, sector 1", "disk gone sdb"),
    (
        "Buffer I/O error on dev dm-0, logical block 1308098575, lost async page write",
        "disk io dm-0",
    ),
    (
        "Buffer I/O error on device sda1, logical block 0",
        "disk io sda1",
    ),
    (
        "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls: reading",
        "disk io sda1",
    ),
    (
        "EXT4-fs error (device sda1) in ext4_reserve_inode_write:5741: IO failure",
        "disk io sda1",
    ),
    (
        "EXT4-fs (dm-0): I/O error while writing superblock",
        "disk io dm-0",
    ),
    (
        "EXT4-fs warning (device sda1): ext4_end_bio:343: I/O error 10 writing to inode 1",
        "disk io sda1",
    ),
    (
        "EXT4-fs (nvme0n1p2): recovery complete",
        "unclean nvme0n1p2",
    ),
    (
        "XFS (dm-0): Ending recovery (logdev: internal)",
        "unclean dm-0",
    ),
    (
        "BTRFS info (device sda1): start tree-log replay",
        "unclean sda1",
    ),
    (
        "FAT-fs (sda1): Volume was not properly unmounted. Some data may be corrupt. Please run fsck.",
        "unclean sda1",
    ),
    (
        "EXT4-fs (md0): Remounting filesystem read-only",
        "read-only md0",
    ),
    (
        "EXT3-fs (sda1): error: remounting filesystem read-only, remounting read-only",
        "read-only sda1",
    ),
    ("Aborting journal on device dm-0-8.", "read-only dm-0"),
    ("Aborting journal on device sdb1.", "read-only sdb1"),
    (
        "XFS (sda1): metadata I/O error in \"xfs_trans_read_buf_map\" at daddr 0x1",
        "disk io sda1",
    ),
    (
        "XFS (dm-0): Corruption of in-memory data (0x8) detected at x.  Shutting down filesystem.",
        "read-only dm-0",
    ),
    (
        "XFS (dm-0): Log I/O Error Detected.  Shutting down filesystem",
        "read-only dm-0",
    ),
    (
        "XFS (dm-0): Filesystem has been shut down due to log error (0x2).",
        "read-only dm-0",
    ),
    (
        "BTRFS info (device sda1: state E): forced readonly",
        "read-only sda1",
    ),
    (
        "BTRFS: error (device sda1) in btrfs_commit_transaction:2418: errno=-5 IO failure",
        "disk io sda1",
    ),
    (
        "BTRFS error (device sda1): bdev /dev/sda1 errs: wr 0, rd 1, flush 0, corrupt 0, gen 0",
        "disk io sda1",
    ),
    (
        "FAT-fs (sdc1): Filesystem has been set read-only",
        "read-only sdc1",
    ),
    (
        "nvme nvme4: I/O tag 22 (2016) opcode 0x2 (Admin Cmd) QID 0 timeout, reset controller",
        "disk io nvme4",
    ),
    (
        "nvme nvme0: I/O 123 QID 4 timeout, aborting",
        "disk io nvme0",
    ),
    (
        "nvme nvme0: I/O 123 (Read) QID 4 timeout, aborting req_op:READ(0) size:4096",
        "disk io nvme0",
    ),
    (
        "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
        "disk io nvme0",
    ),
    (
        "nvme nvme0: Device not ready; aborting reset, CSTS=0x1",
        "disk io nvme0",
    ),
    (
        "nvme nvme4: Disabling device after reset failure: -19",
        "disk gone nvme4",
    ),
    (
        "nvme nvme0: Removing after probe failure status: -19",
        "disk gone nvme0",
    ),
    (
        "nvme0n1: Read(0x2) @ LBA 0, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR",
        "disk medium nvme0n1",
    ),
    (
        "nvme0n1: I/O Cmd(0x1) @ LBA 0, 8 blocks, I/O Error (sct 0x3 / sc 0x71)",
        "disk io nvme0n1",
    ),
    (
        "md/raid0md0: Disk failure on nvme0n1p1 detected, failing array.",
        "disk gone md0",
    ),
    (
        "md/raid1:md0: Disk failure on sdb1, disabling device.\nmd/raid1:md0: Operation continuing on 1 devices.",
        "raid degraded md0",
    ),
    (
        "md/raid:md127: Disk failure on sdb1, disabling device.",
        "raid degraded md127",
    ),
    (
        "md/raid10:md0: Operation continuing on 3 devices.",
        "raid degraded md0",
    ),
    (
        "md/raid:md0: Cannot continue operation (2/3 failed).",
        "disk gone md0",
    ),
    (
        "md/raid1:md0: active with 1 out of 2 mirrors",
        "raid degraded md0",
    ),
    (
        "md/raid:md0: raid level 5 active with 2 out of 3 devices, algorithm 2",
        "raid degraded md0",
    ),
    (
        "ata1.00: exception Emask 0x0 SAct 0x8 SErr 0x0 action 0x0",
        "disk io ata1.00",
    ),
    (
        "ata1.00: failed command: READ FPDMA QUEUED",
        "disk io ata1.00",
    ),
    ("ata1.00: disabled", "disk gone ata1.00"),
    ("ata1.00: disable device", "disk gone ata1.00"),
    (
        "sd 0:0:0:0: [sda] tag#3 rejecting I/O to offline device",
        "disk gone sda",
    ),
    (
        "sd 0:0:0:0: rejecting I/O to offline device",
        "disk gone 0:0:0:0",
    ),
    (
        "sd 0:0:0:0: Device offlined - not ready after error recovery",
        "disk gone 0:0:0:0",
    ),
    (
        "sd 0:0:0:0: [sda] tag#3 Sense Key : Medium Error [current] ",
        "disk medium sda",
    ),
    (
        "sd 0:0:0:0: [sda] tag#3 Sense Key : Hardware Error [current] ",
        "disk io sda",
    ),
];

pub(super) const NETWORK: &[(&str, &str)] = &[
    (
        "igb 0000:03:00.0 eth0: igb: eth0 NIC Link is Down",
        "nic down eth0",
    ),
    (
        "igb 0000:03:00.0 eno1: igb: eno1 NIC Link is Up 1000 Mbps Full Duplex, Flow Control: RX/TX",
        "nic up eno1",
    ),
    ("e1000e: eth0 NIC Link is Down", "nic down eth0"),
    (
        "e1000e 0000:00:19.0 eno1: NIC Link is Down",
        "nic down eno1",
    ),
    (
        "e1000e 0000:00:1f.6 eno1: NIC Link is Up 1000 Mbps Full Duplex, Flow Control: None",
        "nic up eno1",
    ),
    ("ixgbe 0000:01:00.0 eth2: NIC Link is Down", "nic down eth2"),
    ("i40e 0000:3d:00.0 eno1: NIC Link is Down", "nic down eno1"),
    ("r8169 0000:02:00.0 enp2s0: Link is Down", "nic down enp2s0"),
    (
        "r8169 0000:02:00.0 enp2s0: Link is Up - 1Gbps/Full - flow control rx/tx",
        "nic up enp2s0",
    ),
    ("r8169 0000:02:00.0: eth0: link down", "nic down eth0"),
    ("r8169 0000:02:00.0: eth0: link up", "nic up eth0"),
    ("tg3 0000:01:00.0: eth0: Link is down", "nic down eth0"),
    (
        "tg3 0000:01:00.0 eth0: Link is up at 1000 Mbps, full duplex",
        "nic up eth0",
    ),
    (
        "mlx5_core 0000:01:00.0 ens1f0np0: Link down",
        "nic down ens1f0np0",
    ),
    (
        "mlx5_core 0000:01:00.0 ens1f0np0: Link up",
        "nic up ens1f0np0",
    ),
    (
        "tegra-mgbe 6910000.ethernet eth1: Link is Up - 1Gbps/Full - flow control rx/tx",
        "nic up eth1",
    ),
    (
        "NETDEV WATCHDOG: eth0 (igb): transmit queue 3 timed out",
        "nic tx timeout eth0",
    ),
    (
        "r8169 0000:01:00.0 enp1s0: NETDEV WATCHDOG: CPU: 3: transmit queue 0 timed out 5376 ms",
        "nic tx timeout enp1s0",
    ),
];

pub(super) const MACHINE: &[(&str, &str)] = &[
    (
        "Out of memory: Kill process 13536 (memorymonster) score 1000 or sacrifice child",
        "out of memory by 13536",
    ),
    (
        "Out of memory: Killed process 12 (x) total-vm:1kB",
        "out of memory by 12",
    ),
    (
        "Out of memory (oom_kill_allocating_task): Killed process 12 (x)",
        "out of memory by 12",
    ),
    (
        "Memory cgroup out of memory: Killed process 12 (x) total-vm:1kB",
        "out of memory by 12",
    ),
    (
        "mce: [Hardware Error]: Machine check events logged",
        "machine check",
    ),
    (
        "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: bea0000000000108",
        "machine check uncorrected",
    ),
    (
        "mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: 8c00004000010092",
        "machine check",
    ),
    (
        "mce: [Hardware Error]: CPU 0: Machine Check Exception: 5 Bank 4: b200000000070f0f",
        "machine check uncorrected",
    ),
    (
        "[Hardware Error]: System Fatal error.",
        "machine check uncorrected",
    ),
    (
        "{1}[Hardware Error]: event severity: corrected",
        "machine check",
    ),
    (
        "{12}[Hardware Error]: event severity: recoverable",
        "machine check uncorrected",
    ),
    (
        "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 slot:0 page:0x1)",
        "ecc corrected CPU_SrcID_0_Ha_0_Chan_1_DIMM_0",
    ),
    (
        "EDAC MC1: 7 CE ie31200 CE on mc#1csrow#0channel#0 (csrow:0 channel:0 page:0x0)",
        "ecc corrected mc_1csrow_0channel_0 ×7",
    ),
    (
        "EDAC MC0: 32767 CE error on unknown memory (csrow:0)",
        "ecc corrected mc0 ×32767",
    ),
    (
        "EDAC MC0: 1 UE memory read error on DIMM_A1 (channel:0 slot:0)",
        "ecc uncorrected DIMM_A1",
    ),
    (
        "EDAC MC0: CE page 0x0, offset 0x0, grain 0, syndrome 0x0, row 0, channel 1, label \"\": amd64_edac",
        "ecc corrected mc0",
    ),
    (
        "EDAC MC0: UE page 0x0, offset 0x0, grain 0, row 0, labels \":\": i3200 UE",
        "ecc uncorrected mc0",
    ),
    (
        "Memory failure: 0x12345: recovery action for dirty LRU page: Recovered",
        "ecc uncorrected page",
    ),
    (
        "nvidia 0000:01:00.0: AER: can't recover (no error_detected callback)",
        "pcie fatal 0000:01:00",
    ),
    (
        "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:01:00.0",
        "pcie corrected 0000:01:00",
    ),
    (
        "pcieport 0000:00:1c.0: AER: Corrected error received: id=00e0",
        "pcie corrected 0000:00:1c",
    ),
    (
        "pcieport 0000:00:1c.0: AER: Multiple Corrected error received: 0000:01:00.0",
        "pcie corrected 0000:01:00",
    ),
    (
        "pcieport 0000:00:1c.0: AER: Uncorrected (Non-Fatal) error received: 0000:01:00.0",
        "pcie non-fatal 0000:01:00",
    ),
    (
        "pcieport 0000:00:01.0: AER: Multiple Uncorrected (Fatal) error received: 0000:01:00.0",
        "pcie fatal 0000:01:00",
    ),
    (
        "pcieport 0000:00:1c.0: AER: Correctable error message received from 0000:01:00.0",
        "pcie corrected 0000:01:00",
    ),
    (
        "nvidia 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
        "pcie corrected 0000:01:00",
    ),
    (
        "nvidia 0000:01:00.0: AER: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer",
        "pcie fatal 0000:01:00",
    ),
    (
        "nvme 0000:02:00.0: PCIe Bus Error: severity=Uncorrectable (Non-Fatal), type=Transaction Layer, (Requester ID)",
        "pcie non-fatal 0000:02:00",
    ),
    (
        "mce: CPU0: Core temperature above threshold, cpu clock throttled (total events = 1)",
        "cpu throttled",
    ),
    (
        "CPU3: Package temperature is above threshold, cpu clock is throttled (total events = 12)",
        "cpu throttled",
    ),
    (
        "CPU3: Core temperature/speed normal (total events = 12)",
        "cpu throttle ended",
    ),
    (
        "watchdog: BUG: soft lockup - CPU#18 stuck for 27s! [python3:2254956]",
        "soft lockup by 2254956",
    ),
    (
        "NMI watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [kworker/u64:3:12]",
        "soft lockup by 12",
    ),
    (
        "BUG: soft lockup - CPU#0 stuck for 22s! [x:12]",
        "soft lockup by 12",
    ),
    (
        "watchdog: Watchdog detected hard LOCKUP on cpu 3",
        "hard lockup",
    ),
    (
        "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
        "hard lockup",
    ),
    (
        "watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3",
        "hard lockup",
    ),
    (
        "rcu: INFO: rcu_sched self-detected stall on CPU",
        "soft lockup",
    ),
    (
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "soft lockup",
    ),
    (
        "INFO: rcu_sched self-detected stall on CPU { 3}  (t=5250 jiffies g=1 c=2 q=3)",
        "soft lockup",
    ),
    (
        "INFO: task kcompactd1:1177 blocked for more than 120 seconds.",
        "hung task by 1177",
    ),
    (
        "INFO: task kworker/u64:3:1177 blocked for more than 120 seconds.",
        "hung task by 1177",
    ),
    (
        "task jfsmount:136986 blocked for more than 120 seconds.",
        "hung task by 136986",
    ),
    (
        "BUG: unable to handle page fault for address: ffffb1f4c0",
        "oops",
    ),
    (
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "oops",
    ),
    ("kernel BUG at fs/ext4/inode.c:2721!", "oops"),
    (
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP NOPTI",
        "oops",
    ),
    ("Oops: 0002 [#1] SMP NOPTI", "oops"),
    ("Internal error: Oops: 96000004 [#1] PREEMPT SMP", "oops"),
    (
        "Kernel panic - not syncing: hung_task: blocked tasks",
        "panic",
    ),
];
