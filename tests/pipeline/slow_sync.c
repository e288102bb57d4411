/* Preloaded into a worker: every sync takes a second, as on a disk that somebody else keeps busy. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_a_second(void)
{
	struct timespec second = {1, 0};
	nanosleep(&second, 0);
}

int fsync(int fd)
{
	wait_a_second();
	return syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	wait_a_second();
	return syscall(SYS_fdatasync, fd);
}
