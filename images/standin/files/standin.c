/*
 * A stand-in for every container of a tenant's stack, for benchmarks that measure the fleet and not the engine.
 *
 * Started as `python .../launcher.py run ...` it keeps heartbeat.json and lifecycle.json as a trading bot does; as
 * pg_isready, redis-cli or a health check it says yes; under any other name it stays up until SIGTERM and listens where
 * Postgres and Redis do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HOME "/home/hummingbot"
#define CONFIG "/opt/hummingfleet/config"
#define REFRESH_SECONDS 2

static volatile sig_atomic_t stopping;

static void on_stop(int number) {
    (void)number;
    stopping = 1;
}

/* ---- SHA-256 (FIPS 180-4), for the digest of the live file ---- */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
    0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
    0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
    0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
    0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
    0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
    0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
    0xc67178f2};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t h[8], const unsigned char *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                     ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t b = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                     ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += a;
        v[0] = a + b;
    }
    for (int i = 0; i < 8; i++)
        h[i] += v[i];
}

static void sha256_hex(const char *data, size_t size, char out[65]) {
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char end[128] = {0};
    size_t whole = size / 64 * 64, rest = size - whole, blocks = rest + 9 > 64 ? 2 : 1;
    for (size_t i = 0; i < whole; i += 64)
        sha256_block(h, (const unsigned char *)data + i);
    memcpy(end, data + whole, rest);
    end[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        end[blocks * 64 - 1 - i] = (unsigned char)((uint64_t)size * 8 >> 8 * i);
    for (size_t i = 0; i < blocks; i++)
        sha256_block(h, end + 64 * i);
    for (int i = 0; i < 8; i++)
        sprintf(out + 8 * i, "%08x", h[i]);
}

/* ---- files ---- */

/* Give a file's content (to be freed) or NULL. */
static char *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    if (file == NULL)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long length = ftell(file);
        rewind(file);
        if (length >= 0 && (data = malloc((size_t)length + 1)) != NULL) {
            *size = fread(data, 1, (size_t)length, file);
            data[*size] = '\0';
        }
    }
    fclose(file);
    return data;
}

/* Replace a file in one step; durable where asked. */
static void write_file(const char *path, int durable, const char *format, ...) {
    char temporary[256];
    va_list arguments;
    snprintf(temporary, sizeof temporary, "%s.new", path);
    FILE *file = fopen(temporary, "w");
    if (file == NULL) {
        fprintf(stderr, "standin: %s: %s\n", temporary, strerror(errno));
        exit(2);
    }
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fflush(file);
    if (durable)
        fsync(fileno(file));
    if (fclose(file) != 0 || rename(temporary, path) != 0) {
        fprintf(stderr, "standin: %s: %s\n", path, strerror(errno));
        exit(2);
    }
}

/* Copy the text value of a key of a flat JSON object; the files are our own, so no escapes are expected. */
static void json_text(const char *json, const char *key, char *out, size_t size) {
    char quoted[64];
    const char *at;
    out[0] = '\0';
    snprintf(quoted, sizeof quoted, "\"%s\"", key);
    if (json == NULL || (at = strstr(json, quoted)) == NULL || (at = strchr(at + strlen(quoted), ':')) == NULL)
        return;
    at += 1 + strspn(at + 1, " \n\t");
    if (*at != '"')
        return;
    size_t length = strcspn(++at, "\"");
    if (length < size) {
        memcpy(out, at, length);
        out[length] = '\0';
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void lifecycle(const char *state, const char *clean, const char *reason) {
    write_file(HOME "/data/lifecycle.json", 1,
               "{\"state\": \"%s\", \"clean\": %s, \"verified\": \"exchange\", \"open_orders\": 0, "
               "\"position_base\": \"0\", \"at\": %.3f, \"reason\": \"%s\"}\n",
               state, clean, now(), reason);
}

static int bot(void) {
    char config[128], kind[8], connector[64], agent[32], live[256], digest[65] = "";
    struct timespec seen = {0, 0};
    size_t size = 0;
    char *json = read_file(CONFIG "/bot.json", &size);
    json_text(json, "config", config, sizeof config);
    json_text(json, "kind", kind, sizeof kind);
    json_text(json, "connector", connector, sizeof connector);
    json_text(json, "agent_version", agent, sizeof agent);
    free(json);
    snprintf(live, sizeof live, CONFIG "/%s/%s", strcmp(kind, "v1") == 0 ? "strategies" : "controllers", config);
    lifecycle("running", "false", "started");
    puts("standin: trading");
    fflush(stdout);
    while (!stopping) {
        struct stat status;
        if (stat(live, &status) == 0 &&
            (status.st_mtim.tv_sec != seen.tv_sec || status.st_mtim.tv_nsec != seen.tv_nsec || !digest[0])) {
            char *text = read_file(live, &size);
            if (text != NULL)
                sha256_hex(text, size, digest);
            free(text);
            seen = status.st_mtim;
        }
        write_file(HOME "/data/heartbeat.json", 0,
                   "{\"at\": %.3f, \"pid\": %d, \"phase\": \"trading\", \"strategy_running\": true, "
                   "\"connectors\": {\"%s\": true}, \"halted\": null, \"position\": {\"base\": \"0\", "
                   "\"cost_quote\": \"0\"}, \"open_orders\": 0, \"fills\": 0, \"engine_version\": \"standin\", "
                   "\"agent_version\": \"%s\", \"config_digest\": \"%s\"}\n",
                   now(), (int)getpid(), connector, agent, digest);
        struct timespec pause = {REFRESH_SECONDS, 0};
        nanosleep(&pause, NULL);
    }
    lifecycle("stopped", "true", "SIGTERM");
    return 0;
}

/* Listen where Postgres and Redis do, and hang up on whoever comes: enough to look alive. */
static int listen_on(uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (descriptor >= 0 && setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0)
        listen(descriptor, 16);
    return descriptor;
}

static int stay(void) {
    struct pollfd doors[] = {{listen_on(5432), POLLIN, 0}, {listen_on(6379), POLLIN, 0}};
    sigset_t none;
    sigemptyset(&none);
    while (!stopping) {
        if (ppoll(doors, 2, NULL, &none) <= 0)
            continue;
        for (int i = 0; i < 2; i++) {
            int guest = doors[i].revents ? accept(doors[i].fd, NULL, NULL) : -1;
            if (guest >= 0)
                close(guest);
        }
    }
    return 0;
}

int main(int count, char **arguments) {
    const char *name = strrchr(arguments[0], '/') ? strrchr(arguments[0], '/') + 1 : arguments[0];
    /* Signals are taken only while waiting, so none is lost between the test and the wait. */
    struct sigaction action = {.sa_handler = on_stop};
    const int stops[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP};
    sigset_t blocked;
    sigemptyset(&blocked);
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        sigaction(stops[i], &action, NULL);
        sigaddset(&blocked, stops[i]);
    }
    if (strcmp(name, "pg_isready") == 0)
        return 0;
    if (strcmp(name, "redis-cli") == 0)
        return puts("PONG") < 0;
    if (strcmp(name, "sh") == 0 && count > 2 &&
        (strstr(arguments[2], "pg_isready") || strstr(arguments[2], "redis-cli") || strstr(arguments[2], "heartbeat")))
        return 0;
    for (int i = 1; i + 1 < count; i++)
        if (strstr(arguments[i], "launcher.py")) {
            if (strcmp(arguments[i + 1], "run") == 0)
                return bot();
            if (strcmp(arguments[i + 1], "settle") == 0 || strcmp(arguments[i + 1], "liquidate") == 0) {
                size_t size = 0;
                lifecycle("stopped", "true", arguments[i + 1]);
                char *json = read_file(HOME "/data/lifecycle.json", &size);
                fputs(json ? json : "", stdout);
            }
            return 0;
        }
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    return stay();
}
