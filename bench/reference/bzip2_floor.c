/* How much CPU libbz2 takes for a file's bytes, compressed again and again in this process at bzip2's default level.
 *
 *     cc -O2 -o bzip2_floor bzip2_floor.c -lbz2
 *     bzip2_floor <file> <rounds>
 *
 * prints the nanoseconds of CPU a round, and the compressed bytes. */

#include <bzlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Level 9, quiet, and libbz2's own work factor: what the command `bzip2` does. */
enum { LEVEL = 9, VERBOSITY = 0, WORK_FACTOR = 0 };

static long long cpu_nanoseconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) != 0) return -1;
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* The file's bytes, which the caller frees; NULL if it can't be read. */
static char *read_file(const char *path, unsigned *length) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    char *bytes = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file);
        rewind(file);
        if (size > 0 && (bytes = malloc((size_t)size)) != NULL) {
            *length = (unsigned)fread(bytes, 1, (size_t)size, file);
        }
    }
    fclose(file);
    return bytes;
}

int main(int count, char **arguments) {
    unsigned length = 0;
    long rounds = count == 3 ? strtol(arguments[2], NULL, 10) : 0;
    char *bytes = rounds > 0 ? read_file(arguments[1], &length) : NULL;
    /* The bound that bzlib.h states for any input. */
    unsigned bound = length + length / 100 + 600;
    char *compressed = bytes == NULL ? NULL : malloc(bound);
    if (compressed == NULL) {
        fprintf(stderr, "usage: bzip2_floor <file> <rounds>\n");
        return 2;
    }
    unsigned compressed_length = 0;
    long long before = cpu_nanoseconds();
    for (long round = 0; round < rounds; round++) {
        compressed_length = bound;
        int problem = BZ2_bzBuffToBuffCompress(compressed, &compressed_length, bytes, length, LEVEL, VERBOSITY, WORK_FACTOR);
        if (problem != BZ_OK) {
            fprintf(stderr, "bzip2_floor: libbz2 says %d\n", problem);
            return 1;
        }
    }
    printf("%lld %u\n", (cpu_nanoseconds() - before) / rounds, compressed_length);
    free(compressed);
    free(bytes);
    return 0;
}
