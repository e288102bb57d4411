/* Load for the benchmarks; prints one line of JSON. CPU time is user + system of this process and its children.
 *   load getppid N            N getppid calls
 *   load open N PATH          N times open and close PATH
 *   load forkexec N PROGRAM   N times fork, exec PROGRAM, wait
 *   load opens RATE SECONDS DIR KINDS
 *                             opens of DIR/<sequence number modulo KINDS>, at RATE per second; KINDS 0: every name is new
 *   load execs N PAUSE_MS DIR N times: copy /bin/true to DIR/<number>, run it, remove it; prints each start's time first
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double cpu(void)
{
    struct rusage self, children;
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    return self.ru_utime.tv_sec + self.ru_stime.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec +
           1e-6 * (self.ru_utime.tv_usec + self.ru_stime.tv_usec + children.ru_utime.tv_usec + children.ru_stime.tv_usec);
}

static long long now(clockid_t clock)
{
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void sleep_until(long long at)
{
    struct timespec until = {at / 1000000000LL, at % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

static void run(const char *program)
{
    char *argv[] = {(char *)program, NULL}, *envp[] = {"LANG=C", NULL};
    pid_t child = vfork();
    if (child == 0) {
        execve(program, argv, envp);
        _exit(127);
    }
    int status;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        fprintf(stderr, "load: cannot run %s\n", program);
        exit(1);
    }
}

static void copy(const char *from, const char *to)
{
    char block[65536];
    ssize_t got;
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (in < 0 || out < 0) {
        perror(to);
        exit(1);
    }
    while ((got = read(in, block, sizeof block)) > 0)
        if (write(out, block, got) != got)
            exit(1);
    close(in);
    close(out);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    const char *what = argv[1];
    long n = atol(argv[2]), done = 0, failed = 0;
    double before = cpu();
    long long start = now(CLOCK_MONOTONIC);
    if (!strcmp(what, "getppid")) {
        for (; done < n; done++)
            syscall(SYS_getppid);
    } else if (!strcmp(what, "open") && argc == 4) {
        for (; done < n; done++)
            close(open(argv[3], O_RDONLY));
    } else if (!strcmp(what, "forkexec") && argc == 4) {
        for (; done < n; done++)
            run(argv[3]);
    } else if (!strcmp(what, "opens") && argc == 6) {
        long kinds = atol(argv[5]), total = n * atol(argv[3]), burst = n / 1000 ? n / 1000 : 1;
        char path[4096];
        for (; done < total; done++) {
            snprintf(path, sizeof path, "%s/%ld", argv[4], kinds ? done % kinds : done);
            int file = open(path, O_RDONLY);
            if (file >= 0)
                close(file);
            else
                failed++;
            if (done % burst == burst - 1)
                sleep_until(start + (long long)((done + 1) * (1e9 / n)));
        }
    } else if (!strcmp(what, "execs") && argc == 5) {
        char path[4096];
        for (; done < n; done++) {
            snprintf(path, sizeof path, "%s/%ld", argv[4], done);
            copy("/bin/true", path);
            printf("{\"path\": \"%s\", \"time\": %lld}\n", path, now(CLOCK_REALTIME));
            fflush(stdout);
            run(path);
            unlink(path);
            usleep(atol(argv[3]) * 1000);
        }
    } else {
        return 2;
    }
    printf("{\"done\": %ld, \"failed\": %ld, \"cpu_s\": %.6f, \"wall_s\": %.6f}\n", done, failed, cpu() - before,
           (now(CLOCK_MONOTONIC) - start) / 1e9);
    return 0;
}
