/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What all programs share: maps, and how a record is begun, filled and sent.
 *
 * The loader puts "#define"s in front: CPUS, the kernel's offsets from BTF (probes/loader.py, OFFSETS), and HELD, which
 * are no constants to the compiler: settings and secrets are put in when the compiled programs are loaded.
 * No kernel header but uapi/linux/ptrace.h: offsets of another version's headers lie. */

#include <uapi/linux/ptrace.h>

#define SIZED 1              /* how many is said when the map is made: entries() of probes/loader.py */
#define NONE 255             /* struct row: no such argument */
#define REACH 0x7fff         /* a write begins at most here in scratch.data ... */
#define PIECE 4096           /* ... and is at most this long */
#define DEPTH 64             /* directories that a walk climbs */
#define ARGV_MAX 16384
#define REFUSED_ARGS 32

/* How far `strip` has come with names: see calls.bpf.c. In memory for the same reason as `used`. */
struct run {
    u64 exact;               /* of every byte */
    u64 hash;                /* without what changes from run to run */
    u64 before;              /* the hash where the run of letters and digits began */
    u64 length;
    u64 digits;
    u64 uppers;              /* not counting the first */
    u64 lowers;
    u64 switches;            /* between digits and letters */
    u64 digit;               /* was the last one a digit? */
    u64 top;                 /* where the topmost name begins */
    u64 left;                /* of a label in a DNS question */
    u64 rest;                /* of a DNS question, behind its name */
};

struct scratch {
    u64 used;                /* of data; kept in memory, where the verifier knows nothing of it: else it tries each value */
    struct run run;
    u64 args[8];             /* of the call that ends, as x86-64 has them; the last two are never asked for */
    u32 nr;
    u32 compat;              /* the number by which 32-bit code called; 0: it is no 32-bit call */
    struct event e;
    u8 data[REACH + 1 + PIECE];
};

/* Two rings: what comes in floods (files, connections, DNS) cannot push out what must not be missed. */
BPF_RINGBUF_OUTPUT(events, SIZED);
BPF_RINGBUF_OUTPUT(urgent, SIZED);
BPF_ARRAY(rows, struct row, 512);
BPF_ARRAY(compat, u16, COMPAT_ROWS); /* 1 + the x86-64 number of a 32-bit call; of socketcall's: from SOCKETCALL on */
BPF_PROG_ARRAY(takes, 8);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);
BPF_TABLE("lru_hash", u64, u8, came_in, 16384); /* struct sock, while nobody connects it anew */
BPF_HASH(self, u32, u8, 4096);      /* thread groups of our own */

/* One record is built here before it is sent: BPF's stack is 512 bytes, and a per-CPU map's value at most 32 KiB.
 * The tracepoints run with preemption off and none of them interrupts another; still, each family has its own. */
BPF_ARRAY(scratch_call, struct scratch, CPUS);
BPF_ARRAY(scratch_exec, struct scratch, CPUS);
BPF_ARRAY(scratch_process, struct scratch, CPUS);
BPF_ARRAY(scratch_cgroup, struct scratch, CPUS);

#define GET(to, base, offset) bpf_probe_read_kernel(&(to), sizeof(to), (const void *)((u64)(base) + (offset)))

#define AT(type, words, offset) (*(type *)((u8 *)(words) + (offset)))

/* The verifier must see the bound on the very register that is added to the pointer. */
#define BOUND(value) asm volatile("%0 &= 0x7fff" : "+r"(value))

/* Hides from the compiler that a loop's bound stays what it is: else it counts down to zero instead, and the verifier of
 * 6.1 knows no end. */
#define ANEW(value) asm volatile("" : "+r"(value))

static __always_inline u8 *end_of(struct scratch *s)
{
    u64 at = s->used;
    BOUND(at);
    return &s->data[at];
}

static __always_inline void count(u32 which)
{
    u64 *n = counters.lookup(&which);
    if (n)
        *n += 1;
}

static __always_inline int is_self(void)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    return self.lookup(&tgid) != NULL;
}

static __always_inline u32 vpid_of(u64 task)
{
    u64 leader = 0, pid = 0;
    u32 level = 0, nr = 0;
    GET(leader, task, TASK_GROUP_LEADER);
    GET(pid, leader, TASK_THREAD_PID);
    GET(level, pid, PID_LEVEL);
    GET(nr, pid, PID_NUMBERS + (u64)(level & 31) * UPID_SIZE + UPID_NR);
    return nr;
}

static __always_inline void of_task(struct event *e, u64 task)
{
    u64 parent = 0, signal = 0, tty = 0;
    GET(e->pid, task, TASK_TGID);
    GET(e->tid, task, TASK_PID);
    GET(parent, task, TASK_REAL_PARENT);
    GET(e->ppid, parent, TASK_TGID);
    e->vpid = vpid_of(task);
    e->login_uid = 0xffffffff;
#ifdef TASK_LOGINUID
    GET(e->login_uid, task, TASK_LOGINUID);
#endif
    GET(signal, task, TASK_SIGNAL);
    GET(tty, signal, SIGNAL_TTY);
    __builtin_memset(e->tty, 0, sizeof(e->tty));
    if (tty)
        bpf_probe_read_kernel_str(e->tty, sizeof(e->tty), (void *)(tty + TTY_NAME));
    bpf_probe_read_kernel(e->comm, sizeof(e->comm), (void *)(task + TASK_COMM));
}

static __always_inline void begin(struct scratch *s, u16 type, s16 nr, u64 task)
{
    struct event *e = &s->e;
    s->used = 0;
    e->time = bpf_ktime_get_boot_ns();
    e->cgroup = bpf_get_current_cgroup_id();
    e->uid = bpf_get_current_uid_gid();
    e->ret = 0;
    e->flags = 0;
    e->child = 0;
    e->marks = 0;
    e->type = type;
    e->nr = nr;
    e->stdio = 0;
    e->pad = 0;
    e->key = 0;
    e->shape = 0;
    __builtin_memset(e->args, 0, sizeof(e->args));
    __builtin_memset(e->len, 0, sizeof(e->len));
    __builtin_memset(e->pad2, 0, sizeof(e->pad2));
    of_task(e, task);
}

/* The reader polls; what is urgent wakes it. A failed output is counted by kind: the ring itself drops in silence. */
static __always_inline void send(struct scratch *s, u32 kind, u8 wake)
{
    u64 size = sizeof(struct event) + s->used, how = wake ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
    long failed;
    BOUND(size);
    if (kind == KIND_FILE || kind == KIND_CONNECT || kind == KIND_ACCEPT || kind == KIND_DNS)
        failed = events.ringbuf_output(&s->e, size, how);
    else
        failed = urgent.ringbuf_output(&s->e, size, how);
    if (failed)
        count(LOST + kind);
}

/* Appends a string of the caller's to a section: its size with the NUL; 0: none, or not readable. */
static __always_inline u64 user_string(struct scratch *s, u64 from, u32 section)
{
    long n = bpf_probe_read_user_str(end_of(s), PIECE, (void *)from);
    if (n <= 0)
        return 0;
    s->used += n;
    s->e.len[section] += n;
    return n;
}

static __always_inline void kernel_string(struct scratch *s, u64 from, u32 section)
{
    long n = bpf_probe_read_kernel_str(end_of(s), PIECE, (void *)from);
    if (n <= 0)
        return;
    s->used += n;
    s->e.len[section] += n;
}

/* Climbs from a dentry to the task's root and writes each name, as the kernel's own d_path does. */
static __always_inline void climb(struct scratch *s, u64 mnt, u64 dentry, u64 task, u32 section, u32 rooted, u32 outside)
{
    u64 fs = 0, root_mnt = 0, root_dentry = 0, start = s->used;
    *end_of(s) = 0;
    s->used += 1;
    GET(fs, task, TASK_FS);
    GET(root_mnt, fs, FS_ROOT + PATH_MNT);
    GET(root_dentry, fs, FS_ROOT + PATH_DENTRY);
#pragma nounroll
    for (int i = 0; i < DEPTH; i++) {
        u64 top = 0, parent = 0, name = 0;
        long n;
        if (dentry == root_dentry && mnt == root_mnt) {
            s->e.marks |= rooted;
            break;
        }
        GET(top, mnt, VFSMOUNT_ROOT);
        if (dentry == top) {
            u64 mount = mnt - MOUNT_MNT;
            GET(parent, mount, MOUNT_PARENT);
            GET(dentry, mount, MOUNT_MOUNTPOINT);
            if (parent == mount || !parent) {
                s->e.marks |= outside;
                break;
            }
            mnt = parent + MOUNT_MNT;
            continue;
        }
        GET(parent, dentry, DENTRY_PARENT);
        GET(name, dentry, DENTRY_NAME);
        n = bpf_probe_read_kernel_str(end_of(s), 256, (void *)name);
        if (n <= 0)
            break;
        s->used += n;
        if (parent == dentry || !parent || s->used - start > PIECE - 256)
            break;
        dentry = parent;
    }
    s->e.len[section] = s->used - start;
}

static __always_inline u64 file_of(u64 task, u64 fd)
{
    u64 files = 0, table = 0, array = 0, file = 0;
    u32 max = 0;
    GET(files, task, TASK_FILES);
    GET(table, files, FILES_FDT);
    GET(max, table, FDTABLE_MAX);
    if ((u32)fd >= max)
        return 0;
    GET(array, table, FDTABLE_FD);
    GET(file, array, (u64)(u32)fd * 8);
    return file;
}

static __always_inline void climb_file(struct scratch *s, u64 file, u64 task, u32 section, u32 rooted, u32 outside)
{
    u64 mnt = 0, dentry = 0;
    GET(mnt, file, FILE_PATH + PATH_MNT);
    GET(dentry, file, FILE_PATH + PATH_DENTRY);
    climb(s, mnt, dentry, task, section, rooted, outside);
}

/* The socket behind a file, or 0. */
static __always_inline u64 socket_of(u64 file)
{
    u64 inode = 0, sock = 0;
    u16 mode = 0;
    if (!file)
        return 0;
    GET(inode, file, FILE_INODE);
    GET(mode, inode, INODE_MODE);
    if ((mode & 0170000) != 0140000)
        return 0;
    GET(sock, file, FILE_PRIVATE);
    return sock;
}

static __always_inline void ends_of(struct ends *to, u64 sock)
{
    u64 sk = 0;
    u16 port = 0;
    __builtin_memset(to, 0, sizeof(*to));
    GET(to->kind, sock, SOCKET_TYPE);
    GET(sk, sock, SOCKET_SK);
    GET(to->family, sk, SK_FAMILY);
    if (to->family != 2 && to->family != 10)
        return;
    GET(to->proto, sk, SK_PROTOCOL);
    GET(port, sk, SK_DPORT);
    to->port = __builtin_bswap16(port);
    GET(to->lport, sk, SK_NUM);
    if (to->family == 2) {
        bpf_probe_read_kernel(to->addr, 4, (void *)(sk + SK_DADDR));
        bpf_probe_read_kernel(to->laddr, 4, (void *)(sk + SK_RCV_SADDR));
#ifdef SK_V6_DADDR
    } else {
        bpf_probe_read_kernel(to->addr, 16, (void *)(sk + SK_V6_DADDR));
        bpf_probe_read_kernel(to->laddr, 16, (void *)(sk + SK_V6_RCV_SADDR));
#endif
    }
}

static __always_inline void sock_section(struct scratch *s, u64 sock)
{
    ends_of((struct ends *)end_of(s), sock);
    s->used += sizeof(struct ends);
    s->e.len[SOCK] = sizeof(struct ends);
}

/* Which of the descriptors 0..2 is an internet socket; the first one's ends go to SOCK. */
static __always_inline void stdio_sockets(struct scratch *s, u64 task)
{
    u64 found = 0;
#pragma unroll
    for (int fd = 0; fd < 3; fd++) {
        u64 sk = 0, sock = socket_of(file_of(task, fd));
        u16 family = 0;
        if (!sock)
            continue;
        GET(sk, sock, SOCKET_SK);
        GET(family, sk, SK_FAMILY);
        if (family != 2 && family != 10)
            continue;
        s->e.stdio |= 1 << fd;
        if (!found)
            found = sock;
    }
    if (found) {
        u64 sk = 0;
        GET(sk, found, SOCKET_SK);
        if (came_in.lookup(&sk))
            s->e.marks |= STDIO_IN;
        sock_section(s, found);
    }
}
