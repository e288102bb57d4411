/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The wire format between kernel and agent, written once: the programs in this folder include it, probes/wire.py reads
 * it as text. So: fixed-size integers and arrays of them only, each aligned to its own size, no hidden padding.
 *
 * A record is a struct event followed by its sections, in the order of enum section, without gaps;
 * event.len[section] is the size of each. Names are bytes: whoever wrote them may be hostile. */

enum type {
    FORK = 1,          /* pid made the process child; args: its vpid, its cgroup, its parent (CLONE_PARENT) */
    EXEC = 2,          /* ret 0: the new image is in place; ret < 0: refused */
    EXIT = 3,          /* the last thread of pid is gone; ret: exit status, or -signal */
    CALL = 4,          /* a row of probes/calls.py */
    CGROUP_MKDIR = 5,  /* args[0]: the cgroup's id; PATH: its path */
    CGROUP_RMDIR = 6,
    CGROUP_ATTACH = 7, /* pid was moved to cgroup args[0]; args[1]: who moved it; args[2]: whole thread group */
    DNS = 8,           /* a message to (mark QUERY) or from a port 53 */
};

enum section {
    PATH = 0,          /* as typed */
    BASE = 1,          /* a NUL, then names from the leaf up, each ended by NUL: directory of PATH, or what fd means */
    PATH2 = 2,
    BASE2 = 3,
    EXE = 4,           /* like BASE: the file that runs */
    ARGV = 5,          /* strings, each ended by NUL */
    TEXT = 6,
    SOCK = 7,          /* struct ends: what the socket itself says */
    ADDR = 8,          /* the caller's sockaddr */
    PAYLOAD = 9,       /* DNS: the message; EXEC, EXIT: struct usage of the image that ends; opens: like BASE, the file's path */
    SECTIONS = 10,
};

/* event.marks */
enum mark {
    BASE_ROOTED = 0x1,     /* the walk reached the task's root: BASE is an absolute path */
    BASE_OUTSIDE = 0x2,    /* it reached the top of the mounts without meeting the task's root */
    BASE2_ROOTED = 0x4,
    BASE2_OUTSIDE = 0x8,
    EXE_ROOTED = 0x10,
    EXE_OUTSIDE = 0x20,
    EXE_UNLINKED = 0x40,   /* no name leads to the file that runs */
    ARGV_CUT = 0x80,
    CREATED = 0x100,       /* this open made the file */
    QUERY = 0x200,         /* DNS: sent, not received */
    PATH_BAD = 0x400,      /* the path could not be read from the caller's memory */
    STREAM = 0x800,        /* DNS over TCP: the message may begin with its length */
    COMPAT = 0x1000,       /* a 32-bit call; nr and args are the x86-64 call's */
    URING = 0x2000,        /* asked of io_uring: the result is not known yet, ret says nothing */
    STDIO_IN = 0x4000,     /* the socket on a standard stream came in by accept */
    FILE_ROOTED = 0x8000,  /* of an open's PAYLOAD */
    FILE_OUTSIDE = 0x10000,
};

struct event {
    u64 time;          /* CLOCK_BOOTTIME, ns */
    u64 cgroup;
    s64 ret;
    u64 args[6];
    u64 flags;
    u32 pid;
    u32 tid;
    u32 vpid;
    u32 ppid;
    u32 uid;
    u32 login_uid;     /* 0xffffffff: none */
    u32 child;
    u32 marks;
    u16 type;
    s16 nr;
    u16 stdio;         /* bit n: descriptor n is an internet socket */
    u16 pad;
    u16 len[10];       /* SECTIONS */
    u16 pad2[2];
    u64 key;           /* keyed hash of exactly this behaviour; 0: always sent */
    u64 shape;         /* the same with the names of the path stripped of what changes from run to run; 0: none */
    u8  comm[16];
    u8  tty[16];
};

struct ends {
    u8  addr[16];      /* the peer, network order; IPv4 in the first four */
    u8  laddr[16];
    u16 port;          /* host order */
    u16 lport;
    u16 family;
    u16 proto;         /* IPPROTO_* */
    u16 kind;          /* SOCK_STREAM, SOCK_DGRAM, ... */
    u16 pad[3];
};

/* One row of probes/calls.py. 255: no such argument. */
struct row {
    u8 on;             /* bit 0: watched; 1: addresses of sends; 2: DNS */
    u8 take;
    u8 when;
    u8 kind;           /* index of the loss counters: wire.KINDS */
    u8 path;
    u8 dirfd;
    u8 path2;
    u8 dirfd2;
    u8 text;
    u8 flags;
    u8 flags_in;
    u8 fd;
    u8 addr;
    u8 addrlen;
    u8 buf;
    u8 wake;
    u8 keyed;          /* bit n: argument n is part of what was done, beside paths and flags */
};

enum take {
    TAKE_PATHS = 0,
    TAKE_EXEC = 1,
    TAKE_SOCKET = 2,
    TAKE_SEND = 3,
    TAKE_RECEIVE = 4,
    TAKE_DUP = 5,
    TAKE_OPEN = 6,
    TAKE_NAMES = 7,
};

enum when {
    WHEN_ALWAYS = 0,
    WHEN_FOUND = 1,
    WHEN_DONE = 2,
    WHEN_STDIO = 3,
    WHEN_DUPFD = 4,
    WHEN_WX = 5,
    WHEN_NAMESPACE = 6,
    WHEN_SIGNAL = 7,
    WHEN_PTRACE = 8,
    WHEN_BPF = 9,
    WHEN_DNS = 10,
    WHEN_SOCKET = 11,
    WHEN_ADJUST = 12,
    WHEN_ATTRIBUTES = 13,
    WHEN_TIMES = 14,
    WHEN_PEER = 15,
};

/* The array of the 32-bit calls. */
enum compat { SOCKETCALL = 512, COMPAT_ROWS = 544, COMPAT_LEFT_OUT = 0xffff };

/* Counters per CPU: what was lost, and what was left out on purpose. LOST + kind is the first kind's; HELD + kind is
 * what a workload's token bucket held back. */
enum counter { QUIET_ENOENT = 0, QUIET_COMPAT = 1, NO_SLOT = 2, LOST = 4, HELD = 20, COUNTERS = 40 };

/* Which system calls an image has made so far, and how many of its six-grams its workload had not shown before. */
struct usage {
    u64 used[8];       /* one bit per number */
    u64 calls;
    u64 misses;
};

/* Per process. The array is indexed by the low bits of the thread group's id: whoever comes later takes the place over. */
struct process {
    u32 tgid;          /* whose this is */
    u32 moved;         /* goes up when the process is moved to another cgroup */
    u64 image;         /* keyed hash of the program file and the first two arguments; 0: not known yet */
    u64 used[8];
    u64 calls;
    u64 misses;
};

/* Per thread, indexed by the low bits of its id. */
struct thread {
    u32 tid;           /* whose this is */
    u32 slot;          /* of the workload; SELF: our own */
    u32 moved;         /* as in struct process, when `slot` was looked up */
    u32 calls;         /* not yet in struct process, modulo FOLD */
    u64 cgroup;
    u64 history;       /* the last six numbers, nine bits each */
    u64 pad[4];        /* a cache line of its own: it is written at every call */
};

/* Per slot and CPU, so that nothing needs to be atomic: what a cgroup did. */
struct tally {
    u64 received;      /* bytes of packets, from the network header on */
    u64 sent;
    u32 calls[512];
    u32 errors[64];    /* by errno; the last one holds all above */
};

/* Per slot. */
struct grams {
    u64 enforcing;     /* 0: new six-grams are noted; 1: they are counted as misses */
    u64 bits[1024];
};

/* Per slot: how many new names it may still send now. */
struct bucket {
    u64 time;          /* CLOCK_BOOTTIME, ns, of the last refill */
    u64 tokens;
    u64 held;          /* how many were not sent for want of one */
};

enum limits { SELF = 0xffffffff, SLOT_REST = 0, THREADS = 32768, PROCESSES = 32768, FOLD = 256 };

/* switches[...] */
enum option { FORWARD = 0, SWITCHES = 4 };
