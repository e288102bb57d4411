/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every system call's return.
 * Hook: the raw tracepoint sys_exit. The arguments are still in pt_regs, the result is known, pages that the caller named
 * are resident now (at sys_enter they need not be), and what seccomp refused comes only here. It is paid on every
 * system call of the machine: what has no row must leave at once. The programs that build records are tail calls. */

#define CLONE_NEW 0x7e020080UL /* NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME */
#define AT_FDCWD_32 0xffffff9cU
#define FMODE_CREATED 0x100000U
#define TS_COMPAT 2
/* bpf(2) commands that only move map elements (1..4, 21, 24..27) or ask (11, 12, 15, 16, 20, 23, 31) */
#define BPF_QUIET 0x8fb1981eULL
#define FS_IOC_SETFLAGS 0x40086602U
#define FS_IOC32_SETFLAGS 0x40046602U
#define FS_IOC_FSSETXATTR 0x401c5820U
#define UTIME_OMIT 0x3ffffffeULL /* and UTIME_NOW is the next */
#define NO_TIME 0x8000000000000000ULL
#define BUSY_AGAIN(ret) ((ret) == -11 || (ret) == -4 || (ret) == -512)

struct asked {
    u32 tgid;
    u32 second;
};
BPF_ARRAY(dns_asked, struct asked, 65536); /* by tgid: when it last connected to port 53, or sent there */

/* One of the first three arguments. */
static __always_inline u64 argument(u64 regs, u32 i)
{
    u64 value = 0, at = offsetof(struct pt_regs, di);
    if (i == 1)
        at = offsetof(struct pt_regs, si);
    else if (i == 2)
        at = offsetof(struct pt_regs, dx);
    GET(value, regs, at);
    return value;
}

/* Within the last minute; a second of 2^30 ns will do. */
static __always_inline int asked_lately(void)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32, slot = tgid & 65535;
    struct asked *asked = dns_asked.lookup(&slot);
    return asked && asked->tgid == tgid && (u32)(bpf_ktime_get_boot_ns() >> 30) - asked->second < 60;
}

static __always_inline int is_told(struct row *row, u64 regs, u32 nr, s64 ret)
{
    u64 a;
    u32 modes = 0;
    switch (row->when) {
    case WHEN_FOUND:
        if (ret == -2)
            count(QUIET_ENOENT);
        return ret != -2;
    case WHEN_DONE:
        return !BUSY_AGAIN(ret);
    case WHEN_STDIO:
        return ret >= 0 && ret <= 2;
    case WHEN_DUPFD:
        if (ret < 0 || ret > 2)
            return 0;
        a = (u32)argument(regs, 1);
        return a == 0 || a == 1030;
    case WHEN_WX:
        return (argument(regs, 2) & 6) == 6;
    case WHEN_NAMESPACE:
        a = argument(regs, 0);
        if (!ret)
            return 0;
        if (row->flags_in != NONE && bpf_probe_read_user(&a, sizeof(a), (void *)a))
            return 0;
        return (a & CLONE_NEW) != 0;
    case WHEN_SIGNAL:
        if (!(u32)argument(regs, row->flags))
            return 0;
        a = (u32)argument(regs, 0);
        return nr == 424 || (a && a != vpid_of(bpf_get_current_task()));
    case WHEN_PTRACE:
        a = argument(regs, 0);
        return a == 0 || (a >= 4 && a <= 6) || a == 13 || a == 15 || a == 16 || a == 0x4205 || a == 0x4206;
    case WHEN_BPF:
        a = (u32)argument(regs, 0);
        return a > 63 || !((BPF_QUIET >> a) & 1);
    case WHEN_DNS:
        return ret > 0 && asked_lately();
    case WHEN_SOCKET:
        a = (u32)argument(regs, 0);
        if (a != 2 && a != 10)
            return a != 1;
        a = argument(regs, 1) & 15;
        return a == 3 || a == 10; /* SOCK_RAW, SOCK_PACKET */
    case WHEN_ADJUST:
        return !bpf_probe_read_user(&modes, sizeof(modes), (void *)argument(regs, row->flags_in)) && modes;
    case WHEN_ATTRIBUTES:
        a = (u32)argument(regs, 1);
        return a == FS_IOC_SETFLAGS || a == FS_IOC32_SETFLAGS || a == FS_IOC_FSSETXATTR;
    }
    return 1;
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 regs = ctx->args[0], number = 0;
    s64 ret = ctx->args[1];
    u32 status = 0, nr;
    GET(number, regs, offsetof(struct pt_regs, orig_ax));
    nr = number;
    struct row *row = rows.lookup(&nr);
    if (!row || !row->on || !is_told(row, regs, nr, ret))
        return 0;
    /* int 0x80 has numbers of its own, which mean other calls here */
    GET(status, bpf_get_current_task(), TASK_STATUS);
    if (status & TS_COMPAT) {
        count(QUIET_COMPAT);
        return 0;
    }
    if (is_self())
        return 0;
    takes.call(ctx, row->take);
    count(LOST + row->kind); /* the tail call failed */
    return 0;
}

/* Begins the record of the call that is ending, and finds its row. */
static __always_inline struct scratch *of_call(struct bpf_raw_tracepoint_args *ctx, struct row **row, u64 task)
{
    u64 regs = ctx->args[0], number = 0, r[8] = {};
    u32 cpu = bpf_get_smp_processor_id(), nr;
    GET(number, regs, offsetof(struct pt_regs, orig_ax));
    nr = number;
    *row = rows.lookup(&nr);
    struct scratch *s = scratch_call.lookup(&cpu);
    if (!*row || !s)
        return NULL;
    begin(s, CALL, nr, task);
    s->e.ret = ctx->args[1];
    GET(r, regs, offsetof(struct pt_regs, r10)); /* r10 r9 r8 ax cx dx si di */
    s->e.args[0] = r[7];
    s->e.args[1] = r[6];
    s->e.args[2] = r[5];
    s->e.args[3] = r[0];
    s->e.args[4] = r[2];
    s->e.args[5] = r[1];
    return s;
}

static __always_inline u64 arg(struct scratch *s, u8 i)
{
    u64 *args = s->e.args;
    u64 at = i;
    asm volatile("%0 &= 7" : "+r"(at)); /* 6 and 7 are never asked for, and still inside of struct event */
    return args[at];
}

/* A path as typed, and what it starts from when it is relative; or what a descriptor means. */
static __always_inline void one_path(struct scratch *s, u64 task, u8 path, u8 dirfd, u8 fd, int opened, int second)
{
    u64 fs = 0, mnt = 0, dentry = 0, file = 0;
    /* utimensat without a path means its descriptor */
    if (path != NONE && (fd == NONE || arg(s, path))) {
        u8 *typed = end_of(s);
        if (!user_string(s, arg(s, path), second ? PATH2 : PATH)) {
            s->e.marks |= PATH_BAD;
            /* The caller's page went while the call ran: by another thread, or the file system (FUSE drops the pages of a
             * program that is opened again). What was opened is told instead; of what was not, no folder is made up. */
            if (!opened || s->e.ret < 0)
                return;
            file = file_of(task, s->e.ret);
        } else if (*typed == '/') {
            return;
        } else if (dirfd == NONE || (u32)arg(s, dirfd) == AT_FDCWD_32) {
            GET(fs, task, TASK_FS);
            GET(mnt, fs, FS_PWD + PATH_MNT);
            GET(dentry, fs, FS_PWD + PATH_DENTRY);
        } else {
            file = file_of(task, arg(s, dirfd));
        }
    } else if (fd != NONE) {
        file = file_of(task, arg(s, fd));
    }
    if (file) {
        GET(mnt, file, FILE_PATH + PATH_MNT);
        GET(dentry, file, FILE_PATH + PATH_DENTRY);
    }
    /* chroot has moved the root already: the parent's is where the caller came from */
    if (s->e.nr == 161 && !s->e.ret)
        GET(task, task, TASK_REAL_PARENT);
    if (dentry)
        climb(s, mnt, dentry, task, second ? BASE2 : BASE, second ? BASE2_ROOTED : BASE_ROOTED,
              second ? BASE2_OUTSIDE : BASE_OUTSIDE);
}

/* utimensat, futimesat, utimes, utime: the second of the new modification time; NO_TIME: now, or as it was. */
static __always_inline u64 new_time(struct scratch *s)
{
    u64 time[2] = {}, at = arg(s, s->e.nr == 280 || s->e.nr == 261 ? 2 : 1);
    u64 second = s->e.nr == 132 ? 8 : 16;
    if (!at || bpf_probe_read_user(time, s->e.nr == 132 ? 8 : 16, (void *)(at + second)))
        return NO_TIME;
    return s->e.nr == 280 && time[1] >= UTIME_OMIT ? NO_TIME : time[0];
}

/* Numbers, up to two paths, a descriptor's path, one string more. */
int take_paths(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u64 task = bpf_get_current_task(), file = 0;
    u32 mode = 0;
    struct scratch *s = of_call(ctx, &row, task);
    if (!s)
        return 0;
    if (row->flags != NONE)
        s->e.flags = (u32)arg(s, row->flags);
    if (row->flags_in != NONE)
        bpf_probe_read_user(&s->e.flags, 8, (void *)arg(s, row->flags_in));
    if (row->when == WHEN_TIMES)
        s->e.args[5] = new_time(s);
    if (row->when == WHEN_FOUND && s->e.ret >= 0 && ((s->e.flags & 0100) || s->e.nr == 85)) {
        file = file_of(task, s->e.ret);
        GET(mode, file, FILE_MODE);
        if (mode & FMODE_CREATED)
            s->e.marks |= CREATED;
    }
    one_path(s, task, row->path, row->dirfd, row->fd, row->when == WHEN_FOUND, 0);
    if (row->path2 != NONE)
        one_path(s, task, row->path2, row->dirfd2, NONE, 0, 1);
    if (row->text != NONE)
        user_string(s, arg(s, row->text), TEXT);
    send(s, row->kind, row->wake);
    return 0;
}

/* An exec that was refused: the caller's own arguments are still there. One that succeeded is told by on_exec. */
int take_exec(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u64 task = bpf_get_current_task(), argv;
    struct scratch *s = of_call(ctx, &row, task);
    if (!s || s->e.ret >= 0)
        return 0;
    s->e.type = EXEC;
    if (row->flags != NONE)
        s->e.flags = (u32)arg(s, row->flags);
    one_path(s, task, row->path, row->dirfd, NONE, 0, 0);
    argv = arg(s, s->e.nr == 322 ? 2 : 1);
#pragma nounroll
    for (int i = 0; i < REFUSED_ARGS; i++) {
        u64 pointer = 0;
        if (bpf_probe_read_user(&pointer, sizeof(pointer), (void *)(argv + i * 8)) || !pointer)
            break;
        if (!user_string(s, pointer, ARGV) || s->e.len[ARGV] > ARGV_MAX / 2 || i == REFUSED_ARGS - 1) {
            s->e.marks |= ARGV_CUT;
            break;
        }
    }
    send(s, KIND_EXEC, row->wake);
    return 0;
}
