/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* cgroups that come and go, and processes that are moved: a container is born, dies, or is left.
 * Hooks: cgroup_mkdir, cgroup_rmdir, cgroup_attach_task; only the v2 hierarchy, whose id is 0. A process that is made
 * inside another cgroup (CLONE_INTO_CGROUP) is not moved: fork tells its cgroup. */

static __always_inline struct scratch *of_cgroup(u64 cgroup, u64 path, u16 type, u64 task)
{
    u64 root = 0, node = 0;
    u32 hierarchy = 1, cpu = bpf_get_smp_processor_id();
    GET(root, cgroup, CGROUP_ROOT);
    GET(hierarchy, root, CGROUP_ROOT_HIERARCHY);
    if (hierarchy)
        return NULL;
    struct scratch *s = scratch_cgroup.lookup(&cpu);
    if (!s)
        return NULL;
    begin(s, type, -1, task);
    GET(node, cgroup, CGROUP_KN);
    GET(s->e.args[0], node, KERNFS_ID);
    kernel_string(s, path, PATH);
    return s;
}

int on_cgroup_mkdir(struct bpf_raw_tracepoint_args *ctx)
{
    struct scratch *s = of_cgroup(ctx->args[0], ctx->args[1], CGROUP_MKDIR, bpf_get_current_task());
    if (s)
        send(s, KIND_CGROUP, 1);
    return 0;
}

int on_cgroup_rmdir(struct bpf_raw_tracepoint_args *ctx)
{
    struct scratch *s = of_cgroup(ctx->args[0], ctx->args[1], CGROUP_RMDIR, bpf_get_current_task());
    if (s)
        send(s, KIND_CGROUP, 0);
    return 0;
}

int on_cgroup_attach(struct bpf_raw_tracepoint_args *ctx)
{
    struct scratch *s = of_cgroup(ctx->args[0], ctx->args[1], CGROUP_ATTACH, ctx->args[2]);
    if (!s)
        return 0;
    struct process *p = process_of(s->e.pid);
    if (p)
        p->moved += 1;
    s->e.cgroup = s->e.args[0];
    s->e.args[1] = bpf_get_current_pid_tgid() >> 32;
    s->e.args[2] = ctx->args[3] & 0xff;
    send(s, KIND_CGROUP, 0);
    return 0;
}
