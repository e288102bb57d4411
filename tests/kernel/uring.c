/* One request to io_uring, without a library: uring [poll:]OPERATION [ARGUMENT]...
 * Ends with 0 when the kernel answered, with 2 when it does not know the operation. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OP_BIND 56
#define OP_LISTEN 57

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return to;
}

static void *ring_part(int fd, size_t size, off_t which)
{
    return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, which);
}

int main(int argc, char **argv)
{
    struct io_uring_params p = {0};
    struct io_uring_sqe sqe = {.fd = AT_FDCWD};
    struct open_how how = {0};
    struct sockaddr_in peer = {0};
    const char *op = argv[1], *first = argc > 2 ? argv[2] : "", *second = argc > 3 ? argv[3] : "";
    if (!strncmp(op, "poll:", 5)) {
        op += 5;
        p.flags = IORING_SETUP_SQPOLL;
        p.sq_thread_idle = 5000;
    }
    int fd = syscall(SYS_io_uring_setup, 1, &p);
    if (fd < 0)
        return 1;
    if (!strcmp(op, "openat")) {
        sqe.opcode = IORING_OP_OPENAT;
        sqe.addr = (uintptr_t)first;
        sqe.open_flags = strtol(second, NULL, 0);
        sqe.len = 0600;
    } else if (!strcmp(op, "openat2")) {
        sqe.opcode = IORING_OP_OPENAT2;
        sqe.addr = (uintptr_t)first;
        how.flags = strtol(second, NULL, 0);
        sqe.off = (uintptr_t)&how;
        sqe.len = sizeof(how);
    } else if (!strcmp(op, "unlinkat")) {
        sqe.opcode = IORING_OP_UNLINKAT;
        sqe.addr = (uintptr_t)first;
    } else if (!strcmp(op, "mkdirat")) {
        sqe.opcode = IORING_OP_MKDIRAT;
        sqe.addr = (uintptr_t)first;
        sqe.len = strtol(second, NULL, 0);
    } else if (!strcmp(op, "renameat") || !strcmp(op, "linkat")) {
        sqe.opcode = op[0] == 'r' ? IORING_OP_RENAMEAT : IORING_OP_LINKAT;
        sqe.addr = (uintptr_t)first;
        sqe.addr2 = (uintptr_t)second;
        sqe.len = AT_FDCWD;
    } else if (!strcmp(op, "symlinkat")) {
        sqe.opcode = IORING_OP_SYMLINKAT;
        sqe.addr = (uintptr_t)first;
        sqe.addr2 = (uintptr_t)second;
    } else if (!strcmp(op, "socket")) {
        sqe.opcode = IORING_OP_SOCKET;
        sqe.fd = atoi(first);
        sqe.off = atoi(second);
    } else {
        sqe.fd = socket(AF_INET, SOCK_STREAM, 0);
        peer = loopback(atoi(first));
        sqe.addr = (uintptr_t)&peer;
        if (!strcmp(op, "connect")) {
            sqe.opcode = IORING_OP_CONNECT;
            sqe.off = sizeof(peer);
        } else if (!strcmp(op, "bind")) {
            sqe.opcode = OP_BIND;
            sqe.off = sizeof(peer);
        } else {
            sqe.opcode = OP_LISTEN;
            sqe.addr = 0;
            sqe.len = atoi(first);
        }
    }
    char *sq = ring_part(fd, p.sq_off.array + p.sq_entries * sizeof(uint32_t), IORING_OFF_SQ_RING);
    char *cq = ring_part(fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
    struct io_uring_sqe *sqes = ring_part(fd, p.sq_entries * sizeof(sqe), IORING_OFF_SQES);
    sqes[0] = sqe;
    ((uint32_t *)(sq + p.sq_off.array))[0] = 0;
    __atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    unsigned flags = IORING_ENTER_GETEVENTS | (p.flags & IORING_SETUP_SQPOLL ? IORING_ENTER_SQ_WAKEUP : 0);
    if (syscall(SYS_io_uring_enter, fd, 1, 1, flags, NULL, 0) < 0)
        return 1;
    int result = ((struct io_uring_cqe *)(cq + p.cq_off.cqes))[0].res;
    return result == -EINVAL || result == -EOPNOTSUPP ? 2 : 0;
}
