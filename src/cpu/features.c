#include "cpu/features.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#define BIT(n) (1u << (n))

static const char *const names[ZI_CPU_FEATURES] = {
    [ZI_CPU_AVX2] = "avx2",
    [ZI_CPU_AVX_VNNI] = "avx-vnni",
    [ZI_CPU_AVX512] = "avx512",
    [ZI_CPU_AVX512_VNNI] = "avx512-vnni",
    [ZI_CPU_AVX512_BF16] = "avx512-bf16",
    [ZI_CPU_AMX_BF16] = "amx-bf16",
    [ZI_CPU_AMX_INT8] = "amx-int8",
    [ZI_CPU_NEON_DOTPROD] = "neon-dotprod",
    [ZI_CPU_NEON_I8MM] = "neon-i8mm",
    [ZI_CPU_NEON_BF16] = "neon-bf16",
};

const char *zi_cpu_feature_name(zi_cpu_feature feature)
{
    return names[feature];
}

#if defined(__x86_64__)

/* Bits of CPUID and of XCR0: Intel, Software Developer's Manual, volume 2, CPUID, and volume 1, chapter 13. */
#define STATE_AVX    (BIT(1) | BIT(2))
#define STATE_AVX512 (STATE_AVX | BIT(5) | BIT(6) | BIT(7))
#define STATE_AMX    (BIT(17) | BIT(18))

/* macOS saves the state of AVX-512 only after a process has used it: there AVX2 runs. */
static uint32_t saved_state(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* On Linux a process must ask for the 8 KiB of tile registers. */
static int amx_permitted(void)
{
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}

static int has(uint32_t value, uint32_t bits)
{
    return (value & bits) == bits;
}

uint32_t zi_cpu_features(void)
{
    uint32_t a, b, c, d, set = 0, leaf7[4], leaf71[4] = {0};
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, BIT(27) | BIT(28) | BIT(12))) /* OSXSAVE, AVX, FMA */
        return 0;
    if (!__get_cpuid_count(7, 0, &leaf7[0], &leaf7[1], &leaf7[2], &leaf7[3]))
        return 0;
    if (leaf7[0] >= 1)
        __get_cpuid_count(7, 1, &leaf71[0], &leaf71[1], &leaf71[2], &leaf71[3]);
    uint32_t state = saved_state();
    if (has(leaf7[1], BIT(5)) && has(state, STATE_AVX)) {
        set |= BIT(ZI_CPU_AVX2);
        if (has(leaf71[0], BIT(4)))
            set |= BIT(ZI_CPU_AVX_VNNI);
    }
    if (set != 0 && has(leaf7[1], BIT(16) | BIT(17) | BIT(30) | BIT(31)) && has(state, STATE_AVX512)) {
        set |= BIT(ZI_CPU_AVX512);
        if (has(leaf7[2], BIT(11)))
            set |= BIT(ZI_CPU_AVX512_VNNI);
        if (has(leaf71[0], BIT(5)))
            set |= BIT(ZI_CPU_AVX512_BF16);
    }
    if (has(set, BIT(ZI_CPU_AVX512_BF16)) && has(leaf7[3], BIT(24)) && has(state, STATE_AMX) && amx_permitted()) {
        if (has(leaf7[3], BIT(22)))
            set |= BIT(ZI_CPU_AMX_BF16);
        if (has(leaf7[3], BIT(25)))
            set |= BIT(ZI_CPU_AMX_INT8);
    }
    return set;
}

#elif defined(__aarch64__) && defined(__linux__)

/* Bits of Linux's arm64 ELF hwcaps (Documentation/arm64/elf_hwcaps.rst): asimddp, i8mm, bf16. */
uint32_t zi_cpu_features(void)
{
    unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    return (first >> 20 & 1) << ZI_CPU_NEON_DOTPROD | (second >> 13 & 1) << ZI_CPU_NEON_I8MM |
           (second >> 14 & 1) << ZI_CPU_NEON_BF16;
}

#elif defined(__aarch64__) && defined(__APPLE__)

/* Names of Apple's "Determining Instruction Set Characteristics", since macOS 12. */
static uint32_t bit_if(const char *name, zi_cpu_feature feature)
{
    int value = 0;
    size_t size = sizeof(value);
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0 ? BIT(feature) : 0;
}

uint32_t zi_cpu_features(void)
{
    return bit_if("hw.optional.arm.FEAT_DotProd", ZI_CPU_NEON_DOTPROD) |
           bit_if("hw.optional.arm.FEAT_I8MM", ZI_CPU_NEON_I8MM) |
           bit_if("hw.optional.arm.FEAT_BF16", ZI_CPU_NEON_BF16);
}

#else

uint32_t zi_cpu_features(void)
{
    return 0;
}

#endif

static int find(const char *name, size_t length)
{
    for (int i = 0; i < ZI_CPU_FEATURES; i++)
        if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0)
            return i;
    return -1;
}

static zimage_status unknown(const char *name, size_t length, zimage_error *error)
{
    char known[256] = "generic";
    for (int i = 0; i < ZI_CPU_FEATURES; i++)
        snprintf(known + strlen(known), sizeof(known) - strlen(known), ", %s", names[i]);
    return zi_fail(error, ZIMAGE_ERROR_ARGUMENT, "cpu_mask: \"%.*s\", expected a list of: %s", (int)length, name,
                   known);
}

zimage_status zi_cpu_mask_parse(const char *list, uint32_t *mask, zimage_error *error)
{
    *mask = UINT32_MAX;
    if (list == NULL)
        return ZIMAGE_OK;
    *mask = 0;
    for (const char *name = list;; name++) {
        size_t length = strcspn(name, ",");
        int feature = find(name, length);
        if (feature >= 0)
            *mask |= 1u << feature;
        else if (length != strlen("generic") || memcmp(name, "generic", length) != 0)
            return unknown(name, length, error);
        name += length;
        if (*name == '\0')
            return ZIMAGE_OK;
    }
}
