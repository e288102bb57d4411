/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Sockets: connect, accept, bind, listen, datagrams, DNS messages, and sockets that become standard streams.
 * Hook: sys_exit, by tail call. In the caller's own context, so that process and cgroup are the caller's, and before
 * any translation of addresses: a container's question to Docker's resolver (127.0.0.11:53) is seen as it was asked.
 * Misses: what io_uring does (uring.bpf.c); answers over a minute after the last question; questions by write on a socket connected
 * before the start or over a minute before; the ninth and later messages of one sendmmsg or recvmmsg. */

#define MESSAGES 8
/* Of one sendmmsg, those that may be usual: a resolver asks for A and AAAA. Each makes the verifier walk its loop again. */
#define QUESTIONS 2
#define MSG_PEEK 2
#define DNS_PORT 53

struct message { /* struct user_msghdr */
    u64 name;
    u32 name_len;
    u32 hole;
    u64 iov;
    u64 iov_len;
    u64 control[2];
    u32 flags;
    u32 hole2;
};

struct piece {
    u64 base;
    u64 len;
};

static __always_inline u16 port_of(u64 addr)
{
    u16 raw[2] = {};
    if (!addr || bpf_probe_read_user(raw, sizeof(raw), (void *)addr) || (raw[0] != 2 && raw[0] != 10))
        return 0;
    return __builtin_bswap16(raw[1]);
}

/* From now on what this process reads may be an answer. */
static __always_inline void asks(struct scratch *s)
{
    struct asked now = { .tgid = s->e.pid, .second = s->e.time >> 30 };
    u32 slot = s->e.pid & 65535;
    dns_asked.update(&slot, &now);
}

/* The caller's sockaddr, at most struct sockaddr_storage. Its family; 0: none. */
static __always_inline u16 address(struct scratch *s, u64 from, u64 len)
{
    u8 *to = end_of(s);
    if (!from)
        return 0;
    if (len > 128)
        len = 128;
    asm volatile("%0 &= 255" : "+r"(len));
    if (len < 2 || len > 128 || bpf_probe_read_user(to, len, (void *)from))
        return 0;
    s->e.len[ADDR] = len;
    s->used += len;
    return *(u16 *)to;
}

/* With whom: of accept the peer's address and our port, else the address that was asked for, or the peer's. Not the
 * peer's port of accept, which is another one each time. `local`: it may be a unix socket. 0: it is always sent. */
static __always_inline u64 key_of_peer(struct scratch *s, u64 who, u16 family, int accepted, int local)
{
    struct ends *ends = (struct ends *)s->data;
    u64 at = s->e.len[SOCK], h, n = s->e.len[ADDR], words[2] = {};
    u16 head[2] = {};
    s64 ret = s->e.ret;
    if (!who || (!n && !at))
        return 0;
    h = mix(mix(who, s->e.nr), ret < 0 && ret != -115 ? -ret : 0);
    if (at)
        h = mix(h, (u64)ends->proto << 32 | ends->kind);
    if (accepted || !n) {
        __builtin_memcpy(words, ends->addr, sizeof(words));
        h = mix(mix(h, words[0]), words[1]);
        return mix(mix(h, family), accepted ? (u64)ends->lport << 16 : ends->port) | 1;
    }
    BOUND(at);
    u8 *addr = &s->data[at];
    __builtin_memcpy(head, addr, sizeof(head));
    h = mix(h, (u64)head[0] << 16 | head[1]);
    if (family == 2) {
        __builtin_memcpy(words, addr + 4, 4);
    } else if (family == 10) {
        __builtin_memcpy(words, addr + 8, 16);
    } else if (local) {
#pragma nounroll
        for (u64 i = 2; i < 128; i++) {
            ANEW(n);
            if (i >= n)
                break;
            u64 c = addr[i & 127];
            h = (h ^ c) * MULTIPLIER;
        }
    }
    return mix(mix(h, words[0]), words[1]) | 1;
}

int take_socket(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u64 task = bpf_get_current_task(), sock;
    u16 family = 0;
    struct scratch *s = of_call(ctx, &row, task);
    if (!s)
        return 0;
    int accepted = row->when == WHEN_DONE;
    sock = socket_of(file_of(task, accepted && s->e.ret >= 0 ? s->e.ret : arg(s, 0)));
    if (sock) {
        struct ends *ends = (struct ends *)s->data;
        sock_section(s, sock);
        family = ends->family;
    }
    if (row->addr != NONE) {
        u64 to = arg(s, row->addr);
        family = address(s, to, (u32)arg(s, row->addrlen)); /* AF_UNSPEC takes a connection back: not told */
        if (s->e.nr == 42 && port_of(to) == DNS_PORT) {
            asks(s);
        }
    }
    if (family != 2 && family != 10 && (family != 1 || accepted))
        return 0;
    if (sock && (accepted || s->e.nr == 42)) {
        u64 sk = 0;
        u8 one = 1;
        GET(sk, sock, SOCKET_SK);
        if (accepted && s->e.ret >= 0)
            came_in.update(&sk, &one);
        else if (!accepted)
            came_in.delete(&sk);
    }
    if (accepted || s->e.nr == 42) {
        s->e.key = key_of_peer(s, who_acts(s, task), family, accepted, 1);
        if (s->e.key && is_known(s->e.key))
            return 0;
    }
    send(s, row->kind, row->wake);
    return 0;
}

/* Which name and type is asked for (RFC 1035, 4.1); 0: it is no plain question of one name. */
static __always_inline u64 key_of_question(struct scratch *s, u64 h)
{
    u64 at = s->used - s->e.len[PAYLOAD];
    struct run *r = &s->run;
    u8 *from;
    BOUND(at);
    from = &s->data[at];
    if (!h || from[2] & 0xf8 || from[4] || from[5] != 1)
        return 0;
    r->left = 0;
    r->rest = 0;
#pragma nounroll
    for (u32 i = 12; i < 12 + 260; i++) {
        u64 c;
        if (i >= s->e.len[PAYLOAD])
            return 0;
        c = from[i];
        h = (h ^ c) * MULTIPLIER;
        if (r->rest) { /* type and class, behind the root's empty label */
            r->rest -= 1;
            if (!r->rest)
                return mix(h, i) | 1;
        } else if (r->left) {
            r->left -= 1;
        } else if (!c) {
            r->rest = 4;
        } else if (c > 63) {
            return 0;
        } else {
            r->left = c;
        }
    }
    return 0;
}

/* One DNS message, or the address of one datagram. The socket's ends are in front, for every message of the call. */
static __always_inline void message(struct scratch *s, struct row *row, u64 who, u64 name, u32 name_len, u64 buf,
                                    u64 len, int sent, int asked)
{
    struct ends *ends = (struct ends *)s->data;
    u16 port = name ? port_of(name) : ends->port;
    s->used = sizeof(*ends);
    s->e.len[ADDR] = 0;
    s->e.len[PAYLOAD] = 0;
    u16 family = address(s, name, name_len);
    if (port == DNS_PORT) {
        if (!(row->on & 4) || s->e.ret <= 0 || !len)
            return;
        if (len > 4095)
            len = 4095;
        asm volatile("%0 &= 4095" : "+r"(len));
        if (bpf_probe_read_user(end_of(s), len, (void *)buf))
            return;
        s->used += len;
        s->e.len[PAYLOAD] = len;
        s->e.type = DNS;
        if (sent)
            asks(s);
        s->e.marks = (sent ? QUERY : 0) | (ends->kind == 1 ? STREAM : 0);
        s->e.key = sent && asked && ends->kind == 2 ? key_of_question(s, key_of_peer(s, who, family, 0, 0)) : 0;
        if (s->e.key && is_known(s->e.key))
            return;
        send(s, KIND_DNS, 0);
    } else if (sent && (row->on & 2) && (family == 2 || family == 10) && ends->kind != 1) {
        s->e.type = CALL;
        s->e.key = key_of_peer(s, who, family, 0, 0);
        if (s->e.key && is_known(s->e.key))
            return;
        send(s, row->kind, 0);
    }
}

/* The internet socket of a transfer from which something may come; 0: none. Asked before anything else is done: most
 * sends and receives of a machine go over connected TCP. */
static __always_inline u64 wanted(u64 task, u64 fd, int addressed)
{
    u64 sk = 0, sock = socket_of(file_of(task, fd));
    u16 family = 0, kind = 0, port = 0;
    if (!sock)
        return 0;
    GET(kind, sock, SOCKET_TYPE);
    GET(sk, sock, SOCKET_SK);
    GET(port, sk, SK_DPORT);
    if (port != __builtin_bswap16(DNS_PORT) && (kind == 1 || !addressed))
        return 0;
    GET(family, sk, SK_FAMILY);
    return family == 2 || family == 10 ? sock : 0;
}

static __always_inline void from_header(struct scratch *s, struct row *row, u64 who, u64 at, u64 done, int sent,
                                        int asked)
{
    struct message m = {};
    struct piece piece = {};
    if (bpf_probe_read_user(&m, sizeof(m), (void *)at))
        return;
    bpf_probe_read_user(&piece, sizeof(piece), (void *)m.iov);
    if (piece.len == 2 && m.iov_len > 1) /* over TCP the length may be a piece of its own */
        bpf_probe_read_user(&piece, sizeof(piece), (void *)(m.iov + sizeof(piece)));
    message(s, row, who, m.name, m.name_len, piece.base, piece.len < done ? piece.len : done, sent,
            asked);
}

/* write, sendto, sendmsg, sendmmsg, and the receiving ones alike. */
static __always_inline void transfer(struct bpf_raw_tracepoint_args *ctx, int sent)
{
    struct row *row;
    u64 task = bpf_get_current_task(), name = 0, sock;
    u32 cpu = bpf_get_smp_processor_id(), nr;
    struct scratch *s = scratch_call.lookup(&cpu);
    if (!s)
        return;
    nr = s->nr;
    int plain = nr == 0 || nr == 1, addressed = !plain;
    if (nr == 44 || nr == 45) {
        name = s->args[4];
        addressed = name != 0;
    }
    sock = wanted(task, s->args[0], addressed);
    if (!sock)
        return;
    s = of_call(ctx, &row, task);
    if (!s)
        return;
    sock_section(s, sock);
    s64 ret = s->e.ret;
    u64 who = sent ? who_acts(s, task) : 0; /* here, once: each place makes the verifier walk its loop again */
    if (row->buf != NONE) {
        if (nr == 45 && ((u32)arg(s, 3) & MSG_PEEK))
            return;
        /* recvfrom's argument 5 is a pointer to the length */
        message(s, row, who, name, sent ? (u32)arg(s, 5) : 28, arg(s, 1), ret, sent, 1);
        return;
    }
    if (nr == 46 || nr == 47) {
        if (sent || !((u32)arg(s, 2) & MSG_PEEK))
            from_header(s, row, who, arg(s, 1), ret < 0 ? 0 : ret, sent, 1);
        return;
    }
#pragma nounroll
    for (int i = 0; i < MESSAGES; i++) {
        u64 at = arg(s, 1) + i * 64; /* struct mmsghdr: struct msghdr, u32 length */
        u32 done = 0;
        if (i >= ret)
            break;
        bpf_probe_read_user(&done, sizeof(done), (void *)(at + sizeof(struct message)));
        from_header(s, row, who, at, done, sent, i < QUESTIONS);
    }
}

int take_send(struct bpf_raw_tracepoint_args *ctx)
{
    transfer(ctx, 1);
    return 0;
}

int take_receive(struct bpf_raw_tracepoint_args *ctx)
{
    transfer(ctx, 0);
    return 0;
}

/* dup, dup2, dup3, fcntl onto 0, 1 or 2. Looks at the files themselves, so that a socket inherited over fork counts
 * like one's own. */
int take_dup(struct bpf_raw_tracepoint_args *ctx)
{
    struct row *row;
    u64 task = bpf_get_current_task();
    struct scratch *s = of_call(ctx, &row, task);
    if (!s)
        return 0;
    stdio_sockets(s, task);
    if ((s->e.stdio >> (s->e.ret & 3)) & 1)
        send(s, row->kind, row->wake);
    return 0;
}
