// Stands for the library of NVIDIA's driver, by LD_LIBRARY_PATH: as much of nvml.h as the program asks, of a machine with
// three GPUs in the order of the bus, the second of which a scheduler keeps from us.
//
// With AFFECTMILL_MIG set the first one is partitioned and has an instance at its second place.
#include <stdio.h>
#include <stdlib.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6 };

typedef struct gpu {
    const char *name, *uuid;
    unsigned long long total, used;
    unsigned busy, decoding;
} gpu;

typedef struct memory { unsigned version; unsigned long long total, reserved, free, used; } memory_info;
typedef struct rates { unsigned gpu, memory; } rates;

static gpu gpus[] = {
    {"NVIDIA H100 80GB HBM3", "GPU-aaaa0000-0000-0000-0000-000000000000", 85899345920ULL, 1073741824ULL, 75, 50},
    {0},
    {"NVIDIA T4", "GPU-bbbb0000-0000-0000-0000-000000000000", 17179869184ULL, 0, 0, 100},
};
static gpu instance = {"NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG-cccc0000-0000-0000-0000-000000000000", 10737418240ULL, 5};

static int partitioned(const gpu *of) { return of == &gpus[0] && getenv("AFFECTMILL_MIG"); }

int nvmlInit_v2(void) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "580.95.05");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 3;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu **handle) {
    if (index > 2) return INVALID_ARGUMENT;
    *handle = &gpus[index];
    return gpus[index].name ? SUCCESS : NO_PERMISSION;
}

int nvmlDeviceGetName(gpu *of, char *name, unsigned length) {
    snprintf(name, length, "%s", of->name);
    return SUCCESS;
}

int nvmlDeviceGetUUID(gpu *of, char *uuid, unsigned length) {
    snprintf(uuid, length, "%s", of->uuid);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(gpu *of, memory_info *memory) {
    memory->total = of->total;
    memory->used = of->used;
    memory->free = of->total - of->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(gpu *of, rates *told) {
    if (of == &instance || partitioned(of)) return NOT_SUPPORTED;
    told->gpu = of->busy;
    told->memory = 0;
    return SUCCESS;
}

int nvmlDeviceGetDecoderUtilization(gpu *of, unsigned *busy, unsigned *period) {
    if (of == &instance || partitioned(of)) return NOT_SUPPORTED;
    *busy = of->decoding;
    *period = 167000;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(gpu *of, unsigned *current, unsigned *pending) {
    if (of == &gpus[2]) return NOT_SUPPORTED;
    *current = *pending = partitioned(of) ? 1 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(gpu *of, unsigned *count) {
    *count = partitioned(of) ? 7 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(gpu *of, unsigned index, gpu **handle) {
    *handle = &instance;
    return partitioned(of) && index == 1 ? SUCCESS : NOT_FOUND;
}
