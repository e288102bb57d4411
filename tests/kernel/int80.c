/* One call of the 32-bit table, by int 0x80 from a 64-bit program: int80 NUMBER [ARGUMENT]...
 * An argument is a number, sTEXT, xHEX (both: where it was put), vA,B,... (where these are, 32 bits each), or S: the
 * number of a new TCP socket. What is pointed to lies below 4 GiB. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

static char *low;

static uint32_t put(const void *what, size_t size)
{
    char *at = low;
    memcpy(at, what, size);
    low += (size + 15) & ~15UL;
    return (uint32_t)(uintptr_t)at;
}

static uint32_t value(char *word)
{
    unsigned char bytes[256];
    uint32_t list[8];
    size_t n = 0;
    char *rest = NULL;
    switch (word[0]) {
    case 's':
        return put(word + 1, strlen(word));
    case 'x':
        for (char *at = word + 1; at[0] && at[1]; at += 2)
            sscanf(at, "%2hhx", &bytes[n++]);
        return put(bytes, n);
    case 'v':
        for (char *part = strtok_r(word + 1, ",", &rest); part; part = strtok_r(NULL, ",", &rest))
            list[n++] = value(part);
        return put(list, n * sizeof(list[0]));
    case 'S':
        return socket(AF_INET, SOCK_STREAM, 0);
    }
    return strtoll(word, NULL, 0);
}

int main(int argc, char **argv)
{
    uint32_t a[7] = {0};
    long result;
    low = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    for (int i = 1; i < argc && i <= 7; i++)
        a[i - 1] = value(argv[i]);
    asm volatile("push %%rbp\n mov %[sixth], %%ebp\n int $0x80\n pop %%rbp"
                 : "=a"(result)
                 : "a"((long)a[0]), "b"((long)a[1]), "c"((long)a[2]), "d"((long)a[3]), "S"((long)a[4]), "D"((long)a[5]),
                   [sixth] "r"(a[6])
                 : "memory", "r8", "r9", "r10", "r11");
    return (int)result < 0;
}
