/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What is asked of io_uring: it does the work of system calls without making them.
 * Hook: io_uring_submit_req (6.1: io_uring_submit_sqe), in the submitting task or the ring's own thread, which belongs to
 * the same process; the request is prepared, so that the kernel's own copy of path and address is read. One record under
 * the number of the call that does the same, marked URING: the result is not known yet.
 * Misses: accept (its listener is told), datagrams and DNS by IORING_OP_SEND and SENDMSG, reads and writes, extended
 * attributes, truncation, commands to devices; the socket of a registered descriptor; where BTF lacks a field, what stands in it. */

#if defined(REQ_ARG) && defined(REQ_OPCODE)

BPF_ARRAY(scratch_uring, struct scratch, CPUS);

/* The twin of an operation; ROWS: none that is told. */
static __always_inline u32 twin_of(u8 opcode)
{
    switch (opcode) {
    case 16: return 42;  /* CONNECT */
    case 18:             /* OPENAT */
    case 28: return 257; /* OPENAT2 */
    case 35: return 316; /* RENAMEAT */
    case 36: return 263; /* UNLINKAT */
    case 37: return 258; /* MKDIRAT */
    case 38: return 266; /* SYMLINKAT */
    case 39: return 265; /* LINKAT */
    case 45: return 41;  /* SOCKET */
    case 56: return 49;  /* BIND */
    case 57: return 50;  /* LISTEN */
    }
    return 512;
}

static __always_inline void uring_path(struct scratch *s, u64 task, u64 name, s32 dirfd, int second)
{
    u64 fs = 0, mnt = 0, dentry = 0, file = 0, text = 0;
    u8 *typed = end_of(s);
    GET(text, name, FILENAME_NAME);
    kernel_string(s, text, second ? PATH2 : PATH);
    if (!s->e.len[second ? PATH2 : PATH]) {
        s->e.marks |= PATH_BAD;
        return;
    }
    if (*typed == '/')
        return;
    if (dirfd == -100) {
        GET(fs, task, TASK_FS);
        GET(mnt, fs, FS_PWD + PATH_MNT);
        GET(dentry, fs, FS_PWD + PATH_DENTRY);
    } else {
        file = file_of(task, dirfd);
        GET(mnt, file, FILE_PATH + PATH_MNT);
        GET(dentry, file, FILE_PATH + PATH_DENTRY);
    }
    climb(s, mnt, dentry, task, second ? BASE2 : BASE, second ? BASE2_ROOTED : BASE_ROOTED,
          second ? BASE2_OUTSIDE : BASE_OUTSIDE);
}

static __always_inline u64 uring_socket(struct scratch *s, u64 task, u64 req)
{
    u64 sock = 0;
#ifdef REQ_FD
    s32 fd = -1;
    u32 flags = 0;
    GET(fd, req, REQ_FD);
    GET(flags, req, REQ_FLAGS);
    if (!(flags & 1)) /* IOSQE_FIXED_FILE: a number of the ring's own */
        sock = socket_of(file_of(task, fd));
    if (sock)
        sock_section(s, sock);
#endif
    return sock;
}

/* The address of connect and bind: since 6.10 the kernel's copy, before that the caller's memory. Its family. */
static __always_inline u16 uring_address(struct scratch *s, u64 req, int connects)
{
    u8 *to = end_of(s);
    s32 len = 0;
    u64 from = 0;
#ifdef IO_CONNECT_LEN
    if (connects)
        GET(len, req, REQ_CMD + IO_CONNECT_LEN);
#endif
#ifdef IO_BIND_LEN
    if (!connects)
        GET(len, req, REQ_CMD + IO_BIND_LEN);
#endif
    u64 size = len;
    if (len > 128)
        size = 128;
    asm volatile("%0 &= 255" : "+r"(size));
    if (size < 2 || size > 128)
        return 0;
#ifdef IO_ASYNC_ADDR
    /* alone in 6.18, before that behind a message, which begins with a pointer: no family reads like one */
    u16 family = 0;
    GET(from, req, REQ_ASYNC);
    GET(family, from, 0);
    if (family != 1 && family != 2 && family != 10)
        from += IO_ASYNC_ADDR;
    if (bpf_probe_read_kernel(to, size, (void *)from))
        return 0;
#elif defined(IO_CONNECT_ADDR)
    GET(from, req, REQ_CMD + IO_CONNECT_ADDR);
    if (!from || bpf_probe_read_user(to, size, (void *)from))
        return 0;
#else
    return 0;
#endif
    s->e.len[ADDR] = size;
    s->used += size;
    if (connects && *(u16 *)(to + 2) == __builtin_bswap16(DNS_PORT))
        asks(s);
    return *(u16 *)to;
}

#define FIELD(to, offset) GET(to, req, REQ_CMD + (offset))

int on_uring(struct bpf_raw_tracepoint_args *ctx)
{
    u64 req = ctx->args[REQ_ARG], name = 0, name2 = 0, target = 0, text = 0, task;
    u32 cpu = bpf_get_smp_processor_id(), nr;
    s32 dirfd = -100, dirfd2 = -100, number = 0;
    u16 mode = 0, family;
    u8 opcode = 255;
    GET(opcode, req, REQ_OPCODE);
    nr = twin_of(opcode);
    struct row *row = rows.lookup(&nr);
    if (!row || !row->on || is_self())
        return 0;
    struct scratch *s = scratch_uring.lookup(&cpu);
    if (!s)
        return 0;
    task = bpf_get_current_task();
    begin(s, CALL, nr, task);
    s->e.marks = URING;
    switch (nr) {
#ifdef IO_OPEN_NAME
    case 257:
        FIELD(s->e.flags, IO_OPEN_HOW);
        s->e.flags &= ~0100000ULL; /* O_LARGEFILE: io_uring sets it by itself */
        FIELD(s->e.args[3], IO_OPEN_HOW + 8);
        FIELD(dirfd, IO_OPEN_DFD);
        FIELD(name, IO_OPEN_NAME);
        break;
#endif
#ifdef IO_UNLINK_NAME
    case 263:
        FIELD(number, IO_UNLINK_FLAGS);
        s->e.flags = (u32)number;
        FIELD(dirfd, IO_UNLINK_DFD);
        FIELD(name, IO_UNLINK_NAME);
        break;
#endif
#ifdef IO_RENAME_OLD
    case 316:
        FIELD(number, IO_RENAME_FLAGS);
        s->e.flags = (u32)number;
        FIELD(dirfd, IO_RENAME_OLD_DFD);
        FIELD(name, IO_RENAME_OLD);
        FIELD(dirfd2, IO_RENAME_NEW_DFD);
        FIELD(name2, IO_RENAME_NEW);
        break;
#endif
#ifdef IO_MKDIR_NAME
    case 258:
        FIELD(mode, IO_MKDIR_MODE);
        s->e.args[2] = mode;
        FIELD(dirfd, IO_MKDIR_DFD);
        FIELD(name, IO_MKDIR_NAME);
        break;
#endif
#ifdef IO_LINK_OLD
    case 265:
        FIELD(dirfd, IO_LINK_OLD_DFD);
        FIELD(name, IO_LINK_OLD);
        FIELD(dirfd2, IO_LINK_NEW_DFD);
        FIELD(name2, IO_LINK_NEW);
        break;
    case 266:
        FIELD(target, IO_LINK_OLD);
        FIELD(dirfd, IO_LINK_NEW_DFD);
        FIELD(name, IO_LINK_NEW);
        break;
#endif
#ifdef IO_SOCKET_DOMAIN
    case 41:
        FIELD(number, IO_SOCKET_DOMAIN);
        s->e.args[0] = (u32)number;
        FIELD(number, IO_SOCKET_TYPE);
        s->e.args[1] = (u32)number;
        FIELD(number, IO_SOCKET_PROTOCOL);
        s->e.args[2] = (u32)number;
        if (!unusual(s->e.args[0], s->e.args[1]))
            return 0;
        break;
#endif
    case 42:
    case 49:
        uring_socket(s, task, req);
        family = uring_address(s, req, nr == 42); /* none: not readable here; that it was asked is told */
        if (s->e.len[ADDR] && family != 1 && family != 2 && family != 10)
            return 0;
        break;
    case 50:
        if (!uring_socket(s, task, req))
            return 0;
        break;
    }
    if (name)
        uring_path(s, task, name, dirfd, 0);
    if (name2)
        uring_path(s, task, name2, dirfd2, 1);
    if (target) {
        GET(text, target, FILENAME_NAME);
        kernel_string(s, text, TEXT);
    }
    send(s, row->kind, row->wake);
    return 0;
}
#endif
