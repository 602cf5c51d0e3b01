/* Intel's AMX on a processor without it: each of its instructions raises SIGILL, and is carried out here instead.
 *
 * Source: Intel's Architecture Instruction Set Extensions, chapter 3 (tiles of bfloat16 only). What real hardware
 * refuses is refused: a tile that is not configured, sizes that do not fit, one register twice, a row that is too long.
 * Any other illegal instruction goes to whoever had the signal before. Denormals are kept, which AMX flushes.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(holds) do { if (!(holds)) refuse("AMX would refuse this: " #holds " does not hold\n"); } while (0)

enum { REGISTERS = 8, ROWS = 16, BYTES = 64, PAIRS = BYTES / 4 };

static __thread struct {
    uint8_t palette, rows[REGISTERS];
    uint16_t width[REGISTERS]; /* bytes of a row */
    uint8_t tile[REGISTERS][ROWS][BYTES];
} state;

static struct sigaction before;

static void refuse(const char *why) {
    if (write(STDERR_FILENO, why, strlen(why)) >= 0) abort();
}

static void configure(const uint8_t *from) {
    memset(&state, 0, sizeof state);
    state.palette = from[0];
    CHECK(state.palette <= 1);
    for (int n = 0; n < BYTES; n++) {
        int reserved = (n > 0 && n < 16) || (n >= 32 && n < 48) || n >= 56;
        CHECK(!reserved || from[n] == 0);
    }
    for (int n = 0; n < REGISTERS && state.palette; n++) {
        memcpy(&state.width[n], from + 16 + 2 * n, 2);
        state.rows[n] = from[48 + n];
        CHECK(state.width[n] <= BYTES && state.rows[n] <= ROWS && !state.width[n] == !state.rows[n]);
    }
}

static void load(int tile, const uint8_t *from, long stride) {
    CHECK(state.rows[tile]);
    memset(state.tile[tile], 0, sizeof state.tile[tile]);
    for (int row = 0; row < state.rows[tile]; row++)
        memcpy(state.tile[tile][row], from + row * stride, state.width[tile]);
}

static void store(int tile, uint8_t *to, long stride) {
    CHECK(state.rows[tile]);
    for (int row = 0; row < state.rows[tile]; row++)
        memcpy(to + row * stride, state.tile[tile][row], state.width[tile]);
}

static float half(const uint8_t *tile, int row, int place) { /* a bfloat16, widened */
    uint32_t bits = 0;
    float value;
    memcpy((uint8_t *)&bits + 2, tile + row * BYTES + 2 * place, 2);
    memcpy(&value, &bits, 4);
    return value;
}

static void multiply(int sums, int left, int right) { /* tdpbf16ps */
    CHECK(sums != left && sums != right && left != right);
    CHECK(state.rows[sums] && state.rows[sums] == state.rows[left] && state.width[sums] == state.width[right]);
    CHECK(state.width[left] == 4 * state.rows[right]);
    const uint8_t *a = &state.tile[left][0][0], *b = &state.tile[right][0][0];
    for (int m = 0; m < state.rows[sums]; m++) {
        float even[PAIRS] = {0}, odd[PAIRS] = {0}, out[PAIRS];
        memcpy(out, state.tile[sums][m], BYTES);
        for (int k = 0; k < state.rows[right]; k++)
            for (int n = 0; n < PAIRS; n++) {
                even[n] += half(a, m, 2 * k) * half(b, k, 2 * n);
                odd[n] += half(a, m, 2 * k + 1) * half(b, k, 2 * n + 1);
            }
        for (int n = 0; n < PAIRS; n++) out[n] += even[n] + odd[n];
        memcpy(state.tile[sums][m], out, state.width[sums]);
    }
}

/* The operand in memory behind an instruction's ModRM byte: where it is, and its index times its scale, apart. */
static const uint8_t *operand(const uint8_t *p, int X, int B, const greg_t *registers, uintptr_t *base, long *index) {
    static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    int mod = *p >> 6, from = (*p & 7) | B << 3, by = 4, scale = 0;
    int extended = (*p++ & 7) == 4;
    if (extended) {
        scale = *p >> 6, by = (*p >> 3 & 7) | X << 3, from = (*p & 7) | B << 3;
        p++;
    }
    int bare = mod == 0 && (from & 7) == 5; /* no base; without an index it would be relative to this instruction */
    CHECK(!bare || extended);
    int32_t far = 0;
    if (mod == 1) far = *(const int8_t *)p++;
    if (mod == 2 || bare) memcpy(&far, p, 4), p += 4;
    *base = (bare ? 0 : registers[order[from]]) + far;
    *index = by == 4 ? 0 : (long)registers[order[by]] << scale;
    return p;
}

static int carry_out(greg_t *registers) {
    const uint8_t *p = (const uint8_t *)registers[REG_RIP];
    if (p[0] != 0xC4 || (p[1] & 0x9F) != 0x82 || p[2] & 0x84) return 0; /* VEX, 128 bits, map 0F38, W0, registers 0-7 */
    int X = !(p[1] & 0x40), B = !(p[1] & 0x20), third = ~p[2] >> 3 & 15, prefix = p[2] & 3, code = p[3];
    int memory = p[4] >> 6 != 3, tile = p[4] >> 3 & 7, other = p[4] & 7;
    uintptr_t base = 0;
    long index = 0;
    const uint8_t *next = memory ? operand(p + 4, X, B, registers, &base, &index) : p + 5;
    if (code == 0x49 && memory && prefix == 0 && tile == 0) configure((const uint8_t *)base + index);
    else if (code == 0x49 && p[4] == 0xC0 && prefix == 0) memset(&state, 0, sizeof state);
    else if (code == 0x49 && !memory && prefix == 3) memset(state.tile[tile], 0, sizeof state.tile[tile]);
    else if (code == 0x4B && memory && prefix == 3) load(tile, (const uint8_t *)base, index);
    else if (code == 0x4B && memory && prefix == 2) store(tile, (uint8_t *)base, index);
    else if (code == 0x5C && !memory && prefix == 2) multiply(tile, other, third);
    else return 0;
    registers[REG_RIP] = (greg_t)next;
    return 1;
}

static void illegal(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    if (!carry_out(((ucontext_t *)context)->uc_mcontext.gregs)) sigaction(SIGILL, &before, 0); /* then it comes again */
}

__attribute__((constructor)) static void begin(void) {
    struct sigaction ours = {.sa_sigaction = illegal, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &ours, &before);
}
