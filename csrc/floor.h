/*
 * The floor of the benchmark: what a spawn costs at the least on this machine,
 * without Python. Read by cffi's cdef() too: plain declarations only.
 */

struct floor_result {
    int code;              /* exit status, or -N for signal N */
    size_t size;           /* bytes captured, of both streams together */
    long long returned_ns; /* CLOCK_MONOTONIC when all was done */
};

/* Run a program in a session of its own with /dev/null as stdin and nothing
 * else open; capture stdout and stderr, the first `capacity` bytes of both into
 * `buffer`, until both have ended; wait for it. 0 or an errno. */
int floor_run(const char *program, char *const argv[], char *const envp[],
              char *buffer, size_t capacity, struct floor_result *result);

/* The same with all three streams on /dev/null, so that its death is the only
 * event: a poll on its pidfd, then waitid. 0 or an errno. */
int floor_wait(const char *program, char *const argv[], char *const envp[],
               struct floor_result *result);
