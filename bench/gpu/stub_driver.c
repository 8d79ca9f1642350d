/* CUDA driver that launches nothing, so that the host's part of a launch can be timed without a GPU. */
#include <stddef.h>
#include <stdint.h>

typedef int Result;
static int context, module, function;
static void *current = &context;
long stub_launches = 0;

Result cuInit(unsigned flags) { return 0; }
Result cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Result cuDeviceGetCount(int *count) { *count = 1; return 0; }
Result cuDeviceGet(int *device, int number) { *device = number; return 0; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 10: *value = 32; break;      /* threads of a warp */
    case 16: *value = 132; break;     /* multiprocessors */
    case 75: *value = 9; break;       /* compute capability 9.0 */
    case 76: *value = 0; break;
    case 97: *value = 232448; break;  /* shared memory of a block, bytes */
    default: *value = 65536;
  }
  return 0;
}
Result cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return 0; }
Result cuCtxGetCurrent(void **now) { *now = current; return 0; }
Result cuCtxSetCurrent(void *now) { current = now; return 0; }
Result cuCtxGetDevice(int *device) { *device = 0; return 0; }
Result cuCtxGetLimit(size_t *value, int limit) { *value = 0; return 0; }
Result cuCtxSetLimit(int limit, size_t value) { return 0; }
Result cuModuleLoadData(void **made, const void *data) { *made = &module; return 0; }
Result cuModuleUnload(void *made) { return 0; }
Result cuModuleGetFunction(void **made, void *from, const char *name) { *made = &function; return 0; }
Result cuFuncGetAttribute(int *value, int attribute, void *of) { *value = attribute == 0 ? 1024 : 0; return 0; }
Result cuFuncSetAttribute(void *of, int attribute, int value) { return 0; }
Result cuFuncSetCacheConfig(void *of, int config) { return 0; }
Result cuGetErrorString(Result error, const char **text) { *text = "invalid argument"; return 0; }
Result cuPointerGetAttribute(void *value, int attribute, uint64_t pointer) { *(uint64_t *)value = pointer; return 0; }
Result cuStreamIsCapturing(void *stream, int *value) { *value = 0; return 0; }
Result cuOccupancyMaxActiveClusters(int *count, void *of, void *config) { *count = 1; return 0; }
Result cuTensorMapEncodeTiled(void) { return 0; }
Result cuTensorMapEncodeIm2col(void) { return 0; }

typedef struct { unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared; } Config;
Result cuLaunchKernelEx(const Config *config, void *of, void **parameters, void **extra) {
  if (config->grid_x > 2147483647u || config->grid_y > 65535 || config->grid_z > 65535) return 1;
  stub_launches++;
  return 0;
}
