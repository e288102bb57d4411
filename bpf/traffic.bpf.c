/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Bytes by direction.
 * Hook: cgroup_skb at the root of the v2 hierarchy, by a link that dies with its holder. It sees each packet with the
 * cgroup of its socket, whatever call moved it (write, splice, io_uring). Misses: packets of no socket, and raw ones. */

struct owner {
    u64 cgroup;              /* never used twice */
    u64 slot;
};
BPF_ARRAY(last_packet, struct owner, CPUS);

static __always_inline struct tally *tally_of_packet(struct __sk_buff *skb)
{
    u64 cgroup = bpf_skb_cgroup_id(skb);
    u32 cpu = bpf_get_smp_processor_id(), at;
    struct owner *last = last_packet.lookup(&cpu);
    if (!last)
        return NULL;
    if (last->cgroup != cgroup || !last->slot) { /* one without a slot may get one */
        u32 *slot = slots.lookup(&cgroup);
        last->cgroup = cgroup;
        last->slot = slot ? *slot : SLOT_REST;
    }
    at = last->slot * CPUS + cpu;
    return tallies.lookup(&at);
}

int count_received(struct __sk_buff *skb)
{
    struct tally *n = tally_of_packet(skb);
    if (n)
        n->received += skb->len;
    return 1; /* always let through */
}

int count_sent(struct __sk_buff *skb)
{
    struct tally *n = tally_of_packet(skb);
    if (n)
        n->sent += skb->len;
    return 1;
}
