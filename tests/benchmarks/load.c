/* Load for the benchmarks; prints one line of JSON. CPU time is user + system of this process and its children.
 *   load getppid N            N getppid calls
 *   load read N PATH          N times read 1 byte of PATH at offset 0
 *   load open N PATH          N times open and close PATH
 *   load connect N            N connections to itself on the loopback, accepted and reset (so that none waits in TIME_WAIT)
 *   load forkexec N PROGRAM   N times fork, exec PROGRAM, wait
 *   load opens RATE SECONDS DIR KINDS
 *                             opens of DIR/<sequence number modulo KINDS>, at RATE per second; KINDS 0: every name is new
 *   load paths N FROM DIR RATE
 *                             opens of N paths that differ, the FROM-th and following of 2^20, at RATE per second or, for 0, at
 *                             once. DIR holds a file f and 32 links to "." with the names below: many names, and no files to make
 *   load crowd N              reads N cgroup directories from stdin, has a process live in each, and waits to be killed
 *   load execs N PAUSE_MS DIR N times: copy /bin/true to DIR/<number>, run it, remove it; prints each start's time first
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_FILES 512
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

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

static void check(int ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static long connections(long n)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct linger reset = {1, 0};
    socklen_t size = sizeof here;
    long done = 0;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    check(!bind(server, (void *)&here, sizeof here) && !listen(server, 16), "listen");
    getsockname(server, (void *)&here, &size);
    for (; done < n; done++) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        check(!connect(client, (void *)&here, sizeof here), "connect");
        int accepted = accept(server, NULL, NULL);
        check(accepted >= 0, "accept");
        close(client);
        close(accepted);
    }
    return done;
}

/* Two letters: nothing that looks like a number or a random name, which a filter might take for one that changes always. */
static const char *word(long i)
{
    static char words[32][3];
    i &= 31;
    words[i][0] = "bdfgklmn"[i >> 2];
    words[i][1] = "aeio"[i & 3];
    return words[i];
}

static void live_in(const char *group)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/cgroup.procs", group);
    int file = open(path, O_WRONLY);
    check(file >= 0 && write(file, "0", 1) == 1, path);
    close(file);
    syscall(SYS_getppid);
}

static long crowd(long n)
{
    char group[4000], byte;
    int ready[2];
    long done = 0;
    check(!pipe(ready), "pipe");
    while (done < n && fgets(group, sizeof group, stdin)) {
        group[strcspn(group, "\n")] = 0;
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            live_in(group);
            check(write(ready[1], ".", 1) == 1, "write");
            for (;;)
                pause();
        }
        done++;
    }
    for (long i = 0; i < done; i++)
        check(read(ready[0], &byte, 1) == 1, "read");
    return done;
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
    } else if (!strcmp(what, "read") && argc == 4) {
        char byte;
        int file = open(argv[3], O_RDONLY);
        for (; done < n; done++)
            failed += pread(file, &byte, 1, 0) != 1;
    } else if (!strcmp(what, "connect")) {
        done = connections(n);
    } else if (!strcmp(what, "crowd")) {
        done = crowd(n);
        printf("{\"done\": %ld}\n", done);
        fflush(stdout);
        for (;;)
            pause();
    } else if (!strcmp(what, "paths") && argc == 6) {
        long from = atol(argv[3]), rate = atol(argv[5]), burst = rate / 1000 ? rate / 1000 : 1;
        char path[4096];
        for (; done < n; done++) {
            long i = from + done;
            snprintf(path, sizeof path, "%s/%s/%s/%s/%s/f", argv[4], word(i >> 15), word(i >> 10), word(i >> 5), word(i));
            int file = open(path, O_RDONLY);
            if (file >= 0)
                close(file);
            else
                failed++;
            if (rate && done % burst == burst - 1)
                sleep_until(start + (long long)((done + 1) * (1e9 / rate)));
        }
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
            failed += file < 0;
            if (file >= MOST_FILES) /* closed together: half of the calls are not opens otherwise */
                syscall(SYS_close_range, MOST_FILES / 2, ~0U, 0);
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
