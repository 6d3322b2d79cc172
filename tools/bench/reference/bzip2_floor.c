/* How much CPU libbz2 takes to compress what comes on the standard input, again and again in this process, at bzip2's default
 * level.
 *
 *     cc -O2 -o bzip2_floor bzip2_floor.c -lbz2
 *     bzip2_floor <rounds> < <file>
 *
 * prints the nanoseconds of CPU a round, and the compressed bytes. */

#include <bzlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Level 9, quiet, and libbz2's own work factor: what the command `bzip2` does. */
enum { LEVEL = 9, VERBOSITY = 0, WORK_FACTOR = 0 };
/* The most that is read, and bzlib.h's bound of what it can become. */
enum { MAX_INPUT = 16 << 20, MAX_OUTPUT = MAX_INPUT + MAX_INPUT / 100 + 600 };

static char input[MAX_INPUT], output[MAX_OUTPUT];

static long long cpu_nanoseconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0) return -1;
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int count, char **arguments) {
    long rounds = count == 2 ? strtol(arguments[1], NULL, 10) : 0;
    unsigned length = rounds > 0 ? (unsigned)fread(input, 1, MAX_INPUT, stdin) : 0;
    if (length == 0) {
        fprintf(stderr, "usage: bzip2_floor <rounds> < <file>\n");
        return 2;
    }
    unsigned compressed = 0;
    long long before = cpu_nanoseconds();
    for (long round = 0; round < rounds; round++) {
        compressed = MAX_OUTPUT;
        int status = BZ2_bzBuffToBuffCompress(output, &compressed, input, length, LEVEL, VERBOSITY, WORK_FACTOR);
        if (status != BZ_OK) {
            fprintf(stderr, "bzip2_floor: libbz2 returned %d\n", status);
            return 1;
        }
    }
    printf("%lld %u\n", (cpu_nanoseconds() - before) / rounds, compressed);
    return 0;
}
