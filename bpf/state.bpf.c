/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the kernel keeps and counts by itself: per thread, per process, per workload. All of it is arrays that are
 * indexed, not hashes that are looked up: the JIT makes an index three instructions. Two that fall on one place take
 * turns, and each begins anew: a collision costs counts of one process, never a wrong attribution.
 *
 * A slot is a small number for a cgroup. The kernel gives them itself, at the first system call that a thread makes in
 * a cgroup without one; the agent reads which is whose, and takes the slot back when the cgroup is gone. Cgroups that
 * came when none was left share slot 0. */

#define GRAM ((1ULL << 54) - 1)
#define MMAPABLE 1024 /* BPF_F_MMAPABLE: the agent reads them without a system call */
#define NAMES 8192

/* Which shape an inode had when it was last opened: walking its path again costs ten times as much. */
struct named {
    u64 key;
    u64 shape;               /* ^ key: two processors that write at once leave nothing that is known */
};

BPF_TABLE("array", u32, struct thread, threads, THREADS);
BPF_F_TABLE("array", u32, struct process, processes, PROCESSES, MMAPABLE);
BPF_F_TABLE("array", u32, struct tally, tallies, SIZED, MMAPABLE);
BPF_F_TABLE("array", u32, struct grams, sequences, SIZED, MMAPABLE);
BPF_F_TABLE("array", u32, struct bucket, buckets, SIZED, MMAPABLE);
BPF_TABLE("array", u32, u32, switches, SWITCHES);
BPF_HASH(slots, u64, u32, SIZED);
BPF_QUEUE(free_slots, u32, SIZED);
BPF_TABLE("hash", u64, u64, known, SIZED);   /* Event.key or Event.shape -> how often it was not sent */
BPF_TABLE("array", u32, struct named, names_of, NAMES);

static __always_inline u64 mix(u64 h, u64 value)
{
    h = (h ^ value) * MULTIPLIER;
    return h ^ (h >> 29);
}

static __always_inline struct process *process_of(u32 tgid)
{
    u32 at = tgid & (PROCESSES - 1);
    struct process *p = processes.lookup(&at);
    if (p && p->tgid != tgid) {
        p->tgid = tgid;
        p->moved = 0;
        p->image = 0;
        p->calls = 0;
        p->misses = 0;
        __builtin_memset(p->used, 0, sizeof(p->used));
    }
    return p;
}

/* The image's record starts anew; what it was goes to PAYLOAD. */
static __always_inline void usage_section(struct scratch *s, struct process *p)
{
    struct usage *to = (struct usage *)end_of(s);
    __builtin_memcpy(to->used, p->used, sizeof(to->used));
    to->calls = p->calls;
    to->misses = p->misses;
    s->used += sizeof(*to);
    s->e.len[PAYLOAD] = sizeof(*to);
}

static __always_inline u32 slot_of(u64 cgroup)
{
    u32 *known_slot = slots.lookup(&cgroup), slot = SLOT_REST;
    if (known_slot)
        return *known_slot;
    if (free_slots.pop(&slot)) {
        count(NO_SLOT);
        return SLOT_REST;
    }
    if (slots.insert(&cgroup, &slot)) { /* another CPU was faster */
        free_slots.push(&slot, 0);
        known_slot = slots.lookup(&cgroup);
        return known_slot ? *known_slot : SLOT_REST;
    }
    return slot;
}

/* A thread that was not seen before, or was moved. */
static __always_inline void meet(struct thread *t, struct process *p, u32 tid)
{
    u64 cgroup = bpf_get_current_cgroup_id();
    if (t->tid != tid) {
        t->history = 0;
        t->calls = 0;
    }
    t->slot = is_self() ? SELF : slot_of(cgroup);
    t->cgroup = cgroup;
    t->moved = p->moved;
    t->tid = tid;
}

static __always_inline void forget_thread(u32 tid)
{
    u32 at = tid & (THREADS - 1);
    struct thread *t = threads.lookup(&at);
    if (t && t->tid == tid)
        t->tid = 0;
}

/* A thread ends, or its image: its calls become the process's. */
static __always_inline void fold_calls(struct process *p, u32 tid)
{
    u32 at = tid & (THREADS - 1);
    struct thread *t = threads.lookup(&at);
    if (!t || t->tid != tid)
        return;
    p->calls += t->calls;
    t->calls = 0;
}

/* Counts one call. The number is below 512. */
static __always_inline void tally(struct thread *t, struct process *p, u32 nr, s64 ret)
{
    u64 bit = 1ULL << (nr & 63), history, gram;
    u32 slot = t->slot, at = slot * CPUS + bpf_get_smp_processor_id();
    u32 word = (nr >> 6) & 7;
    struct tally *n = tallies.lookup(&at);
    if (n) {
        n->calls[nr & 511] += 1;
        if (ret < 0 && ret >= -4095)
            n->errors[ret > -63 ? (-ret) & 63 : 63] += 1;
    }
    /* Threads of one process run on several processors: what all of them write would go back and forth between these. */
    t->calls += 1;
    if (t->calls == FOLD) {
        p->calls += FOLD;
        t->calls = 0;
    }
    if (!(p->used[word] & bit))
        p->used[word] |= bit;
    history = ((t->history << 9) | nr) & GRAM;
    t->history = history;
    gram = (history * MULTIPLIER) >> 48;
    struct grams *seen = sequences.lookup(&slot);
    if (!seen)
        return;
    bit = 1ULL << (gram & 63);
    word = (gram >> 6) & 1023;
    if (seen->bits[word] & bit)
        return;
    if (!seen->enforcing)
        seen->bits[word] |= bit;
    else
        p->misses += 1;
}

/* Which program this is to a baseline: the file that runs and its first two arguments (an interpreter's script). */
static __always_inline u64 image_of(struct scratch *s, u64 task)
{
    u64 mm = 0, file = 0, inode = 0, sb = 0, ino = 0, start = 0, end = 0, h = SEED;
    u32 dev = 0, generation = 0;
    u8 *text = end_of(s);
    GET(mm, task, TASK_MM);
    GET(file, mm, MM_EXE_FILE);
    GET(inode, file, FILE_INODE);
    GET(sb, inode, INODE_SB);
    GET(ino, inode, INODE_INO);
    GET(dev, sb, SB_DEV);
    GET(generation, inode, INODE_GENERATION);
    GET(start, mm, MM_ARG_START);
    h = mix(mix(h, ino), (u64)dev << 32 | generation);
    GET(end, mm, MM_ARG_END);
    u64 n = end - start, words = 0;
    if (n > 128)
        n = 128;
    asm volatile("%0 &= 255" : "+r"(n));
    if (n > 128 || bpf_probe_read_user(text, n, (void *)start)) {
        /* not resident now: this process alone */
        GET(start, task, TASK_START);
        return mix(mix(h, start), bpf_get_current_pid_tgid() >> 32) | 1;
    }
#pragma nounroll
    for (u64 i = 0; i < 128; i++) {
        ANEW(n);
        if (i >= n)
            break;
        u64 c = text[i & 127];
        h = (h ^ c) * MULTIPLIER;
        words += c == 0;
        if (words == 2)
            break;
    }
    return mix(h, words) | 1;
}

static __always_inline int is_known(u64 key)
{
    u64 *n = known.lookup(&key);
    if (!n)
        return 0;
    __sync_fetch_and_add(n, 1);
    return 1;
}

static __always_inline int is_known_by_name(u64 key)
{
    u32 at = (key >> 8) & (NAMES - 1);
    struct named *n = names_of.lookup(&at);
    return n && n->key == key && is_known(n->shape ^ key);
}

static __always_inline void note_name(u64 key, u64 shape)
{
    u32 at = (key >> 8) & (NAMES - 1);
    struct named *n = names_of.lookup(&at);
    if (!n)
        return;
    n->key = key;
    n->shape = shape ^ key;
}

/* Which program in which cgroup. */
static __always_inline u64 who_is(struct thread *t, struct process *p)
{
    return mix(mix(SEED, p->image), t->cgroup) | 1;
}

/* The same of whoever acts now; 0: everything is to be sent. */
static __always_inline u64 who_acts(struct scratch *s, u64 task)
{
    u64 id = bpf_get_current_pid_tgid();
    u32 at = (u32)id & (THREADS - 1), forward = FORWARD, *all = switches.lookup(&forward);
    struct thread *t = threads.lookup(&at);
    struct process *p = process_of(id >> 32);
    if (!t || !p || !all || *all)
        return 0;
    if (!p->image)
        p->image = image_of(s, task);
    return who_is(t, p);
}
