/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* fork, exec, exit.
 * Hooks: the sched tracepoints, which cost nothing per system call and cannot be passed by. */

/* The child runs its parent's image, and has made no call. */
static __always_inline void begin_process(u32 child, u32 parent)
{
    u32 at = parent & (PROCESSES - 1);
    u64 image = 0;
    struct process *p = processes.lookup(&at);
    if (p && p->tgid == parent)
        image = p->image;
    at = child & (PROCESSES - 1);
    p = processes.lookup(&at);
    if (!p)
        return;
    p->tgid = 0; /* whatever was there is gone */
    p = process_of(child);
    if (p)
        p->image = image;
}

/* A new process, not a thread. Runs in the parent, before the child has run. */
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u64 parent = ctx->args[0], child = ctx->args[1], real_parent = 0, css = 0, cgroup = 0, node = 0;
    u32 cpu = bpf_get_smp_processor_id(), tgid = 0, child_tgid = 0, tid = 0;
    GET(tgid, parent, TASK_TGID);
    GET(child_tgid, child, TASK_TGID);
    GET(tid, child, TASK_PID);
    forget_thread(tid); /* a number of a thread that is gone */
    if (tgid == child_tgid)
        return 0;
    begin_process(child_tgid, tgid);
    if (self.lookup(&tgid)) {
        u8 one = 1;
        self.update(&child_tgid, &one);
        return 0;
    }
    /* a number of ours that was noted after its process had gone, and is somebody else's now */
    if (self.lookup(&child_tgid))
        self.delete(&child_tgid);
    struct scratch *s = scratch_process.lookup(&cpu);
    if (!s)
        return 0;
    begin(s, FORK, -1, parent);
    s->e.child = child_tgid;
    s->e.args[0] = vpid_of(child);
    GET(css, child, TASK_CGROUPS);
    GET(cgroup, css, CSS_SET_DFL_CGROUP);
    GET(node, cgroup, CGROUP_KN);
    GET(s->e.args[1], node, KERNFS_ID);
    GET(real_parent, child, TASK_REAL_PARENT);
    GET(tgid, real_parent, TASK_TGID);
    s->e.args[2] = tgid;
    send(s, KIND_FORK, 0);
    return 0;
}

static __always_inline void arguments(struct scratch *s, u64 from, u64 left)
{
    if (left > ARGV_MAX) {
        left = ARGV_MAX;
        s->e.marks |= ARGV_CUT;
    }
#pragma nounroll
    for (int i = 0; i < ARGV_MAX / PIECE; i++) {
        u64 piece = left > PIECE ? PIECE : left;
        if (!piece)
            break;
        asm volatile("%0 &= 0x1fff" : "+r"(piece));
        if (piece > PIECE)
            break;
        if (bpf_probe_read_user(end_of(s), piece, (void *)from)) {
            s->e.marks |= ARGV_CUT;
            break;
        }
        from += piece;
        left -= piece;
        s->used += piece;
        s->e.len[ARGV] += piece;
    }
}

/* A new image is in place and has not run yet: its arguments are on its own stack, whole, and nobody else can reach
 * them. mm->arg_start..arg_end is right for an empty environment, a script and a 32-bit image alike. */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = ctx->args[0], bprm = ctx->args[2], mm = 0, file = 0, inode = 0, name = 0, start = 0, end = 0;
    u32 cpu = bpf_get_smp_processor_id(), links = 1;
    if (is_self())
        return 0;
    struct scratch *s = scratch_exec.lookup(&cpu);
    if (!s)
        return 0;
    begin(s, EXEC, 59, task);
    s->e.args[0] = ctx->args[1]; /* the thread that called it: it takes over the leader's id */

    GET(name, bprm, BINPRM_FILENAME);
    kernel_string(s, name, PATH);

    GET(mm, task, TASK_MM);
    GET(file, mm, MM_EXE_FILE);
    GET(inode, file, FILE_INODE);
    GET(links, inode, INODE_NLINK);
    if (!links)
        s->e.marks |= EXE_UNLINKED;
    climb_file(s, file, task, EXE, EXE_ROOTED, EXE_OUTSIDE);

    GET(start, mm, MM_ARG_START);
    GET(end, mm, MM_ARG_END);
    arguments(s, start, end - start);
    stdio_sockets(s, task);
    struct process *p = process_of(s->e.pid);
    if (p) {
        fold_calls(p, s->e.args[0]);
        fold_calls(p, s->e.pid);
        usage_section(s, p);
        p->tgid = 0;
        p = process_of(s->e.pid);
    }
    if (p)
        p->image = image_of(s, task);
    forget_thread(s->e.pid);
    send(s, KIND_EXEC, s->e.stdio != 0);
    return 0;
}

#ifndef EXIT_TELLS_GROUP
/* Older kernels (6.12) do not say whether the thread was the last, and two that end at once both find nobody
 * left: whoever is first to write this down tells. */
struct ended {
    u64 start;
    u64 tgid;
};
BPF_TABLE("lru_hash", struct ended, u8, exits, 1024);
#endif

/* The last thread of a process is gone. */
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = ctx->args[0];
    u64 id = bpf_get_current_pid_tgid();
    u32 cpu = bpf_get_smp_processor_id(), tgid = id >> 32, code = 0;
    struct process *p = process_of(tgid);
    if (!p)
        return 0;
    fold_calls(p, id);
#ifdef EXIT_TELLS_GROUP
    if (!(ctx->args[1] & 0xff))
        return 0;
#else
    u64 signal = 0;
    u32 live = 0;
    GET(signal, task, TASK_SIGNAL);
    GET(live, signal, SIGNAL_LIVE);
    if (live)
        return 0;
    u64 leader = 0;
    u8 one = 1;
    struct ended ended = { .tgid = tgid };
    GET(leader, task, TASK_GROUP_LEADER);
    GET(ended.start, leader, TASK_START);
    if (exits.insert(&ended, &one) == -17)
        return 0;
#endif
    if (self.lookup(&tgid)) {
        self.delete(&tgid);
        return 0;
    }
    struct scratch *s = scratch_process.lookup(&cpu);
    if (!s)
        return 0;
    begin(s, EXIT, -1, task);
    GET(code, task, TASK_EXIT_CODE);
    s->e.ret = code & 0x7f ? -(s64)(code & 0x7f) : (code >> 8) & 0xff;
    usage_section(s, p);
    send(s, KIND_EXIT, 0);
    return 0;
}
