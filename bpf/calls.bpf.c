/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every system call's return.
 * Hook: the raw tracepoint sys_exit. The arguments are still in pt_regs, the result is known, pages that the caller named
 * are resident now (at sys_enter they need not be), and what seccomp refused comes only here. It is paid on every
 * system call of the machine: what has no row must leave at once. The programs that build records are tail calls. */

#define CLONE_NEW 0x7e020080UL /* NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME */
#define AT_FDCWD_32 0xffffff9cU
#define FMODE_CREATED 0x100000U
#define TS_COMPAT 2
#define NO_SUCH 511 /* under this number 32-bit calls are counted that have no row */
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

/* A field of a struct that the verifier knows by its type: one instruction, where each call of a helper costs some 25 ns
 * (the processor's mitigations make returns slow). bcc would make a bpf_probe_read of it, so it must not see it. */
#define LOAD(size, to, pointer, offset) \
    asm volatile("%0 = *(" #size " *)(%1 + %2)" : "=r"(to) : "r"(pointer), "i"(offset))

#ifdef HAS_TASK_REGS /* Linux 5.15 */
#define CURRENT struct task_struct *
#define REGISTERS struct pt_regs *
#define current_task() bpf_get_current_task_btf()
#ifdef TYPED
#define registers_of(task, ctx) ((struct pt_regs *)(ctx)->args[0]) /* the verifier knows what the tracepoint gives */
#else
#define registers_of(task, ctx) ((struct pt_regs *)bpf_task_pt_regs(task))
#endif
#define REGISTER(to, regs, name) LOAD(u64, to, regs, offsetof(struct pt_regs, name))
#define FIELD_OF(to, task, offset) LOAD(u32, to, task, offset)
#else
#define CURRENT u64
#define REGISTERS u64
#define current_task() bpf_get_current_task()
#define registers_of(task, ctx) ((ctx)->args[0])
#define REGISTER(to, regs, name) to = 0; GET(to, regs, offsetof(struct pt_regs, name))
#define FIELD_OF(to, task, offset) to = 0; bpf_probe_read_kernel(&(to), 4, (void *)((task) + (offset)))
#endif

/* Puts a 32-bit call as the x86-64 call that does the same; NULL: it has none that is watched. Its arguments are the lower
 * halves of bx, cx, dx, si, di, bp; socketcall's and the old mmap's are in memory. */
static __always_inline struct scratch *of_compat(u64 regs, u32 number)
{
    u64 r[11] = {}; /* bp bx r11 r10 r9 r8 ax cx dx si di */
    u32 cpu = bpf_get_smp_processor_id(), at = number, six[6] = {};
    struct scratch *s = scratch_call.lookup(&cpu);
    if (!s)
        return NULL;
    GET(r, regs, offsetof(struct pt_regs, bp));
    if (number == 102)
        at = SOCKETCALL + ((u32)r[1] & 31);
    u16 *native = compat.lookup(&at);
    if (!native || !*native)
        return NULL;
    if (*native == COMPAT_LEFT_OUT) {
        count(QUIET_COMPAT);
        return NULL;
    }
    s->nr = *native - 1;
    s->compat = number;
    s->args[0] = (u32)r[1];
    s->args[1] = (u32)r[7];
    s->args[2] = (u32)r[8];
    s->args[3] = (u32)r[9];
    s->args[4] = (u32)r[10];
    s->args[5] = (u32)r[0];
    if (number == 102 || number == 90) {
        u64 from = number == 102 ? (u32)r[7] : (u32)r[1];
#pragma unroll
        for (int i = 0; i < 6; i++) { /* one by one: what lies behind the last one need not be readable */
            bpf_probe_read_user(&six[i], sizeof(six[i]), (void *)(from + i * 4));
            s->args[i] = six[i];
        }
        if (at == SOCKETCALL + 9 || at == SOCKETCALL + 10) /* send, recv: sendto, recvfrom without an address */
            s->args[4] = s->args[5] = 0;
    }
    if (number == 22) /* umount has no flags */
        s->args[1] = 0;
    return s;
}

static __always_inline struct scratch *of_native(REGISTERS regs, u32 nr)
{
    u32 cpu = bpf_get_smp_processor_id();
    u64 value;
    struct scratch *s = scratch_call.lookup(&cpu);
    if (!s)
        return NULL;
    s->nr = nr;
    s->compat = 0;
#define ARGUMENT(i, name) REGISTER(value, regs, name); s->args[i] = value
    ARGUMENT(0, di);
    ARGUMENT(1, si);
    ARGUMENT(2, dx);
    ARGUMENT(3, r10);
    ARGUMENT(4, r8);
    ARGUMENT(5, r9);
    return s;
}

/* One of the first three arguments; of a 32-bit call, any. */
static __always_inline u64 argument(struct scratch *old, REGISTERS regs, u32 i)
{
    u64 value;
    if (old)
        return old->args[i & 7];
    if (i == 1) {
        REGISTER(value, regs, si);
    } else if (i == 2) {
        REGISTER(value, regs, dx);
    } else {
        REGISTER(value, regs, di);
    }
    return value;
}

/* Within the last minute; a second of 2^30 ns will do. */
static __always_inline int asked_lately(u32 tgid)
{
    u32 slot = tgid & 65535;
    struct asked *asked = dns_asked.lookup(&slot);
    return asked && asked->tgid == tgid && (u32)(bpf_ktime_get_boot_ns() >> 30) - asked->second < 60;
}

/* A socket that is neither a unix one nor a plain one of the internet. */
static __always_inline int unusual(u32 family, u32 type)
{
    type &= 15;
    return family == 2 || family == 10 ? type == 3 || type == 10 : family != 1; /* SOCK_RAW, SOCK_PACKET */
}

/* The file behind a descriptor that the call used: the table has room for it, and tables never shrink. */
static __always_inline u64 used_file(CURRENT task, u64 fd)
{
    u64 files = 0, table = 0, array = 0, file = 0;
#ifdef HAS_TASK_REGS
    LOAD(u64, files, task, TASK_FILES);
    if (!files) /* so that the verifier knows that it is there */
        return 0;
    LOAD(u64, table, files, FILES_FDT);
    LOAD(u64, array, table, FDTABLE_FD);
#else
    GET(files, task, TASK_FILES);
    GET(table, files, FILES_FDT);
    GET(array, table, FDTABLE_FD);
#endif
    GET(file, array, fd * 8);
    return file;
}

/* A datagram that names its peer, or something for port 53. Most of what a machine sends goes over connected TCP. */
static __always_inline int has_peer(CURRENT task, struct scratch *old, REGISTERS regs, u32 nr, s64 ret)
{
    u64 socket = 0, sk = 0, name = 1, found[SOCKET_SPAN / 8] = {};
    u16 port = 0;
    if (BUSY_AGAIN(ret) || ret == -9 || ret == -88) /* EBADF, ENOTSOCK */
        return 0;
    if (old)
        return 1;
    GET(socket, used_file(task, (u32)argument(old, regs, 0)), FILE_PRIVATE);
    GET(found, socket, SOCKET_LOW);
    if (nr == 44) {
        REGISTER(name, regs, r8);
    }
    if (AT(u16, found, SOCKET_TYPE - SOCKET_LOW) != 1 && name)
        return 1;
    sk = AT(u64, found, SOCKET_SK - SOCKET_LOW);
    GET(port, sk, SK_DPORT);
    return port == __builtin_bswap16(53);
}

static __always_inline int is_told(struct row *row, struct scratch *old, CURRENT task, u32 tgid, REGISTERS regs, u32 nr,
                                   s64 ret)
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
        a = (u32)argument(old, regs, 1);
        return a == 0 || a == 1030;
    case WHEN_WX:
        return (argument(old, regs, 2) & 6) == 6;
    case WHEN_NAMESPACE:
        a = argument(old, regs, 0);
        if (!ret)
            return 0;
        if (row->flags_in != NONE && bpf_probe_read_user(&a, sizeof(a), (void *)a))
            return 0;
        return (a & CLONE_NEW) != 0;
    case WHEN_SIGNAL:
        if (!(u32)argument(old, regs, row->flags))
            return 0;
        a = (u32)argument(old, regs, 0);
        return nr == 424 || (a && a != vpid_of(bpf_get_current_task()));
    case WHEN_PTRACE:
        a = argument(old, regs, 0);
        return a == 0 || (a >= 4 && a <= 6) || a == 13 || a == 15 || a == 16 || a == 0x4205 || a == 0x4206;
    case WHEN_BPF:
        a = (u32)argument(old, regs, 0);
        return a > 63 || !((BPF_QUIET >> a) & 1);
    case WHEN_DNS:
        return ret > 0 && asked_lately(tgid);
    case WHEN_SOCKET:
        return unusual(argument(old, regs, 0), argument(old, regs, 1));
    case WHEN_ADJUST:
        return !bpf_probe_read_user(&modes, sizeof(modes), (void *)argument(old, regs, row->flags_in)) && modes;
    case WHEN_PEER:
        return has_peer(task, old, regs, nr, ret);
    case WHEN_ATTRIBUTES:
        a = (u32)argument(old, regs, 1);
        return a == FS_IOC_SETFLAGS || a == FS_IOC32_SETFLAGS || a == FS_IOC_FSSETXATTR;
    }
    return 1;
}

/* Who opens what, and how: by the file that was opened, not by the path that was typed, which another thread can
 * rewrite and a link can bend. 0: the call made the file, so it is another one each time. */
static __always_inline u64 key_of(u64 who, u64 file, u64 flags)
{
    u64 f[FILE_SPAN / 8] = {}, i[INODE_SPAN / 8] = {}, inode;
    u32 generation = 0;
    GET(f, file, FILE_LOW);
    if (AT(u32, f, FILE_MODE - FILE_LOW) & FMODE_CREATED)
        return 0;
    inode = AT(u64, f, FILE_INODE - FILE_LOW);
    GET(i, inode, INODE_LOW);
    GET(generation, inode, INODE_GENERATION);
    who = mix(who, AT(u64, i, INODE_INO - INODE_LOW));
    who = mix(who, AT(u64, i, INODE_SB - INODE_LOW));
    return mix(who, flags << 32 | generation) | 1;
}

/* The open family: is this one usual? Asked here and not behind a tail call, since it is most of what a machine opens. */
static __always_inline int is_usual_open(struct thread *t, struct process *p, CURRENT task, REGISTERS regs, u32 nr, s64 ret)
{
    u32 forward = FORWARD, *all = switches.lookup(&forward);
    u64 flags, who, key;
    if (ret < 0 || !p->image || !all || *all)
        return 0;
    if (nr == 257) {
        REGISTER(flags, regs, dx);
    } else if (nr == 2) {
        REGISTER(flags, regs, si);
    } else {
        return 0;
    }
    who = who_is(t, p);
    key = key_of(who, used_file(task, ret), (u32)flags);
    return key && (is_known(key) || is_known_by_name(key));
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 number, tid, tgid, status;
    s64 ret = ctx->args[1];
    CURRENT task = current_task();
    REGISTERS regs = registers_of(task, ctx);
    struct scratch *s = NULL;
    FIELD_OF(tid, task, TASK_PID);
    FIELD_OF(tgid, task, TASK_TGID);
    FIELD_OF(status, task, TASK_STATUS);
    REGISTER(number, regs, orig_ax);
    u32 nr = number, at = tid & (THREADS - 1);
    struct thread *t = threads.lookup(&at);
    struct process *p = process_of(tgid);
    if (!t || !p || number > 511) /* sigreturn's is -1 */
        return 0;
    if (t->tid != (u32)tid || t->moved != p->moved)
        meet(t, p, tid);
    if (t->slot == SELF)
        return 0;
    if (status & TS_COMPAT) { /* int 0x80, sysenter: its numbers mean other calls */
        s = of_compat(ctx->args[0], nr);
        nr = s ? s->nr & 511 : NO_SUCH;
    }
    tally(t, p, nr, ret);
    struct row *row = rows.lookup(&nr);
    if (!row || !row->on || !is_told(row, s, task, tgid, regs, nr, ret))
        return 0;
    if (row->take == TAKE_OPEN && !s && is_usual_open(t, p, task, regs, nr, ret))
        return 0;
    if (!s && !of_native(regs, nr))
        return 0;
    takes.call(ctx, row->take);
    count(LOST + row->kind); /* the tail call failed */
    return 0;
}

/* Begins the record of the call that is ending, and finds its row. */
static __always_inline struct scratch *of_call(struct bpf_raw_tracepoint_args *ctx, struct row **row, u64 task)
{
    u32 cpu = bpf_get_smp_processor_id(), nr;
    struct scratch *s = scratch_call.lookup(&cpu);
    if (!s)
        return NULL;
    nr = s->nr;
    *row = rows.lookup(&nr);
    if (!*row)
        return NULL;
    begin(s, CALL, nr, task);
    s->e.ret = ctx->args[1];
    s->e.marks = s->compat ? COMPAT : 0;
    __builtin_memcpy(s->e.args, s->args, sizeof(s->e.args));
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
    u64 skip = s->e.nr == 132 ? 1 : 2;
    if (!at)
        return NO_TIME;
    if (s->compat && s->compat != 412) { /* all but utimensat_time64 have 32-bit times */
        s32 old[2] = {};
        if (bpf_probe_read_user(old, s->e.nr == 132 ? 4 : 8, (void *)(at + skip * 4)))
            return NO_TIME;
        time[0] = (s64)old[0];
        time[1] = (u32)old[1];
    } else if (bpf_probe_read_user(time, s->e.nr == 132 ? 8 : 16, (void *)(at + skip * 8))) {
        return NO_TIME;
    }
    return s->e.nr == 280 && time[1] >= UTIME_OMIT ? NO_TIME : time[0];
}

/* Numbers, up to two paths, a descriptor's path, one string more. */
static __always_inline void paths(struct scratch *s, struct row *row, u64 task)
{
    u64 file = 0;
    u32 mode = 0;
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
}

int take_paths(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u64 task = bpf_get_current_task();
    struct scratch *s = of_call(ctx, &row, task);
    if (!s)
        return 0;
    paths(s, row, task);
    send(s, row->kind, row->wake);
    return 0;
}

/* The end of a run of letters, digits and underscores: a number counts as any number, and what looks drawn at random
 * as any of its like. */
static __always_inline void end_of_run(struct run *r)
{
    if (r->length && r->digits == r->length)
        r->hash = mix(r->before, '#');
    else if (r->length >= 6 && (r->switches >= 2 || (r->uppers >= 2 && r->lowers)))
        r->hash = mix(r->before, '?');
    r->length = 0;
    r->digits = 0;
    r->uppers = 0;
    r->lowers = 0;
    r->switches = 0;
}

#define SHAPED 256
/* c - first < count, without a branch: of each one the verifier would go both ways, 256 times */
#define AMONG(c, first, count) ((((c) - (first) - (count)) & ~((c) - (first))) >> 63)

/* Hashes all that lies in data from `start` on, twice: as it is, and stripped of what changes from run to run. 0: it is
 * too long. */
static __always_inline int strip(struct scratch *s, u64 start, u64 seed)
{
    struct run *r = &s->run;
    u64 n = s->used - start;
    if (n > SHAPED)
        return 0;
    r->exact = seed;
    r->hash = seed;
    r->top = start;
    r->length = 0;
    r->digit = 0;
    end_of_run(r);
#pragma nounroll
    for (u64 i = 0; i < SHAPED; i++) {
        ANEW(n);
        if (i >= n)
            break;
        u64 at = start + i;
        BOUND(at);
        u64 c = s->data[at];
        r->exact = (r->exact ^ c) * MULTIPLIER;
        u64 digit = AMONG(c, '0', 10), upper = AMONG(c, 'A', 26), lower = AMONG(c, 'a', 26) | AMONG(c, '_', 1);
        if (digit || upper || lower) {
            if (!r->length)
                r->before = r->hash;
            else if (digit != r->digit)
                r->switches += 1;
            if (r->length)
                r->uppers += upper;
            r->lowers += lower;
            r->digits += digit;
            r->length += 1;
            r->digit = digit;
        } else {
            end_of_run(r);
            if (!c && i + 1 < n)
                r->top = start + i + 1;
        }
        r->hash = (r->hash ^ c) * MULTIPLIER;
    }
    end_of_run(r);
    r->exact = mix(r->exact, n) | 1;
    r->hash = mix(r->hash, seed) | 1;
    return 1;
}

static __always_inline u8 data_at(struct scratch *s, u64 at)
{
    BOUND(at);
    return s->data[at];
}

/* Does a path begin here with /etc, /root, /home, /run or /boot (without its slash)? */
static __always_inline int is_kept_apart(struct scratch *s, u64 at)
{
    u32 name = 0, three;
    BOUND(at);
    __builtin_memcpy(&name, &s->data[at], 4);
    three = name & 0xffffff;
    return name == 0x746f6f72 || name == 0x656d6f68 || name == 0x746f6f62 ||
           ((three == 0x637465 || three == 0x6e7572) && ((name >> 24) == 0 || (name >> 24) == '/'));
}

/* May this workload send one new name more? What lies under /etc, /root, /home, /run and /boot has a bucket of its own,
 * so that a flood of names elsewhere does not hide it. */
static __always_inline int spend(struct scratch *s, u32 slot, u32 kind)
{
    u64 elapsed, more, second = s->e.len[PATH] + s->e.len[BASE];
    if (is_kept_apart(s, s->run.top) || (s->data[0] == '/' && is_kept_apart(s, 1)) ||
        (s->e.len[PATH2] && data_at(s, second) == '/' && is_kept_apart(s, second + 1)))
        slot += SLOTS;
    struct bucket *b = buckets.lookup(&slot);
    if (!b)
        return 1;
    elapsed = s->e.time - b->time;
    if (elapsed > 1ULL << 32)
        elapsed = 1ULL << 32;
    more = ((elapsed >> 10) * NEW_PER_SECOND) >> 20;
    if (more) {
        b->time = s->e.time;
        b->tokens += more;
        if (b->tokens > 2 * NEW_PER_SECOND)
            b->tokens = 2 * NEW_PER_SECOND;
    }
    if (!b->tokens) {
        b->held += 1;
        count(HELD + kind);
        return 0;
    }
    b->tokens -= 1;
    return 1;
}

/* By the paths as they were typed, exactly or stripped. */
static __always_inline int is_usual_by_name(struct scratch *s, u64 seed)
{
    if (!strip(s, 0, seed))
        return 0;
    s->e.key = s->run.exact;
    s->e.shape = s->run.hash;
    return is_known(s->e.key) || is_known(s->e.shape);
}

static __always_inline u32 open_flags(struct scratch *s, u32 nr)
{
    u64 flags = s->args[2];
    if (nr == 2)
        flags = s->args[1];
    else if (nr == 85) /* creat: O_WRONLY | O_CREAT | O_TRUNC */
        flags = 01101;
    else if (nr == 437)
        bpf_probe_read_user(&flags, sizeof(flags), (void *)s->args[2]);
    return flags;
}

/* The open family. What the agent was told is usual for this workload is counted, and not sent. */
int take_open(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = bpf_get_current_task(), file = 0, key = 0, flags = 0, who = 0;
    s64 ret = ctx->args[1];
    u32 cpu = bpf_get_smp_processor_id(), at = (u32)bpf_get_current_pid_tgid() & (THREADS - 1), nr;
    struct thread *t = threads.lookup(&at);
    struct scratch *s = scratch_call.lookup(&cpu);
    struct row *row;
    if (!t || !s)
        return 0;
    nr = s->nr;
    s->used = 0;
    who = who_acts(s, task);
    if (who && ret >= 0) {
        file = used_file(current_task(), ret);
        flags = open_flags(s, nr);
        key = key_of(who, file, flags);
        if (key && is_known(key))
            return 0;
    }
    s = of_call(ctx, &row, task);
    if (!s)
        return 0;
    s->e.key = key;
    s->run.top = 0;
    paths(s, row, task);
    if (who && ret < 0 && is_usual_by_name(s, mix(mix(mix(who, nr), -ret), s->e.flags ^ (u64)s->e.marks << 32)))
        return 0; /* refused: there is no file */
    if (file) {
        u64 start = s->used;
        climb_file(s, file, task, PAYLOAD, FILE_ROOTED, FILE_OUTSIDE);
        if (strip(s, start, mix(mix(who, flags), s->e.marks & CREATED))) {
            s->e.shape = s->run.hash;
            if (is_known(s->e.shape)) {
                if (key)
                    note_name(key, s->e.shape);
                return 0;
            }
        }
    }
    if (!spend(s, t->slot, row->kind))
        return 0;
    send(s, row->kind, row->wake);
    return 0;
}

/* What is done to names, rights, owners, times and attributes of files. Its key is the paths as they were typed and from
 * where: of a name that is gone there is no inode. What sets a time is always sent. */
int take_names(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u32 at = (u32)bpf_get_current_pid_tgid() & (THREADS - 1);
    u64 task = bpf_get_current_task(), who;
    struct thread *t = threads.lookup(&at);
    struct scratch *s = of_call(ctx, &row, task);
    if (!t || !s)
        return 0;
    who = who_acts(s, task);
    s->run.top = 0;
    paths(s, row, task);
    if (who && (row->when != WHEN_TIMES || s->e.args[5] == NO_TIME)) {
        who = mix(mix(who, s->e.nr), s->e.ret < 0 ? -s->e.ret : 0);
        who = mix(mix(who, s->e.flags), s->e.marks);
#pragma unroll
        for (int i = 0; i < 6; i++) {
            if ((row->keyed >> i) & 1)
                who = mix(who, s->e.args[i]);
        }
        if (is_usual_by_name(s, who))
            return 0;
    }
    if (!spend(s, t->slot, row->kind))
        return 0;
    send(s, row->kind, row->wake);
    return 0;
}

/* An exec that was refused: the caller's own arguments are still there. One that succeeded is told by on_exec. */
int take_exec(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u64 task = bpf_get_current_task(), argv, size;
    struct scratch *s = of_call(ctx, &row, task);
    if (!s || s->e.ret >= 0)
        return 0;
    s->e.type = EXEC;
    if (row->flags != NONE)
        s->e.flags = (u32)arg(s, row->flags);
    one_path(s, task, row->path, row->dirfd, NONE, 0, 0);
    argv = arg(s, s->e.nr == 322 ? 2 : 1);
    size = s->compat ? 4 : 8;
#pragma nounroll
    for (int i = 0; i < REFUSED_ARGS; i++) {
        u64 pointer = 0;
        if (bpf_probe_read_user(&pointer, size, (void *)(argv + i * size)) || !pointer)
            break;
        if (!user_string(s, pointer, ARGV) || s->e.len[ARGV] > ARGV_MAX / 2 || i == REFUSED_ARGS - 1) {
            s->e.marks |= ARGV_CUT;
            break;
        }
    }
    send(s, KIND_EXEC, row->wake);
    return 0;
}
