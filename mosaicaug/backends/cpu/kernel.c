/* Plans carried out on a CPU: every output row is made from beginning to end by one thread.
 *
 * `check_job` looks at every number that an address is computed from; `drain_job` then makes units (bands of images)
 * until none is left, and may be called by several threads at once. Nothing is kept between calls. The arithmetic is
 * that of reference.py, step by step and bit for bit: float32, no fused multiply-add (build with -ffp-contract=off).
 * `Job` is mirrored by `Job` in compiled.py.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#ifndef SOURCE
#define SOURCE 0
#endif

/* Loops over pixels are compiled for two kinds of CPU, of which the loader takes the better one. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define LOOP __attribute__((target_clones("avx2", "default"), noinline)) static
#define EACH _Pragma("GCC ivdep") for
#else
#define LOOP static
#define EACH for
#endif
#define INLINE static inline
#define EXPORT __attribute__((visibility("default")))

enum { UINT8, BFLOAT16, FLOAT32, OTHER }; /* OTHER is copied only */

typedef struct {
    /* Strides are in elements. A pixel is `pixel` elements side by side: all channels of channels_last, else one. */
    int64_t stored, stored_height, stored_width; /* the images: how many, and their size in px */
    int64_t batch, height, width;                /* the output's */
    int64_t planes, channels, pixel;
    int64_t grid, tile_height, tile_width;
    int64_t in_image, in_row, in_column, out_image, out_row, out_column;
    int64_t in_type, out_type, in_bytes, out_bytes; /* dtype, and bytes of an element */
    int64_t nearest, unit_images, unit_rows, units;
    int64_t touches;    /* images are read in order before tiles are picked from them */
    int64_t stage_rows; /* rows of a plane that are put together in the cache and then written; 0 writes them directly */
    int64_t streams;    /* staged rows are written past the cache */
    int64_t next, done, failed; /* counted while units are made */
    const char *images;
    char *out;
    const int64_t *in_plane, *out_plane; /* [planes], offset of each plane in an image */
    const int64_t *index, *window;       /* [batch] and [batch, 3], or null */
    const int32_t *tiles, *overlay, *from_box, *to_box;
    const float *opacity, *mean, *scale; /* mean and scale: [channels], or null */
} Job;

typedef struct {
    int64_t offset, step; /* in elements: of the first pixel in plane 0, and from one pixel to the next */
    int64_t x, count;     /* where the run lies in the output row, px */
} Run;

typedef struct { /* memory of one thread */
    float *base, *over, *upper, *lower; /* a row each */
    float *mean, *scale;                /* a row for each channel, or one of whole pixels */
    float *across;                      /* weight of each column's second tap */
    int32_t *near, *far;                /* taps of each column */
    Run *runs;
    int64_t *stage_plane; /* [planes], as out_plane, of staged rows */
    char *stage;          /* these rows, of one plane */
} Scratch;

/* 1. Addresses: the batch entry's pixel through index and window. */

INLINE Run locate(const Job *job, int64_t entry, int64_t y, int64_t x, int64_t count) {
    Run run = {.step = job->in_column, .x = x, .count = count};
    int64_t stored = job->index ? job->index[entry] : entry;
    if (job->window) {
        const int64_t *window = job->window + 3 * entry;
        y += window[0];
        x = window[2] ? window[1] + job->width - 1 - x : window[1] + x;
        run.step = window[2] ? -job->in_column : job->in_column;
    }
    run.offset = stored * job->in_image + y * job->in_row + x * job->in_column;
    return run;
}

/* Runs of a row of tiles, from left to right; neighbours in memory become one run. */
INLINE int64_t list_runs(const Job *job, int64_t image, int64_t tile_row, Run *runs) {
    int64_t count = 0, grid = job->grid, tiled = tile_row < grid ? grid * job->tile_width : 0;
    for (int64_t column = 0; column * job->tile_width < tiled; column++) {
        uint32_t tile = (uint32_t)job->tiles[(image * grid + tile_row) * grid + column], side = (uint32_t)grid;
        uint32_t row = tile / side, entry = row / side;
        Run run = locate(job, entry, (row - entry * side) * job->tile_height, (tile - row * side) * job->tile_width,
                         job->tile_width);
        Run *last = runs + count - 1;
        run.x = column * job->tile_width;
        if (count && last->step == run.step && last->offset + last->step * last->count == run.offset)
            last->count += run.count;
        else
            runs[count++] = run;
    }
    if (tiled < job->width) { /* the margin stays where it is */
        int64_t y = tile_row * job->tile_height;
        Run run = locate(job, image, y, tiled, job->width - tiled);
        Run *last = runs + count - 1;
        if (count && last->step == run.step && last->offset + last->step * last->count == run.offset)
            last->count += run.count;
        else
            runs[count++] = run;
    }
    return count;
}

/* 2. Images in order: read from memory in one stream, so that tiles are then picked from the cache. */

/* True if most tiles of an output image come from the batch entry of its place. */
INLINE int shows_itself(const Job *job, int64_t image) {
    int64_t tiles = job->grid * job->grid, own = 0;
    for (int64_t i = 0; i < tiles; i++)
        own += job->tiles[image * tiles + i] / tiles == image;
    return 2 * own > tiles;
}

INLINE void touch_plane(const Job *job, int64_t image, int64_t plane) {
    int64_t stored = job->index ? job->index[image] : image, top = job->window ? job->window[3 * image] : 0;
    int64_t begin = stored * job->in_image + top * job->in_row + job->in_plane[plane];
    int64_t end = begin + (job->height - 1) * job->in_row + job->stored_width * job->pixel;
    for (const volatile char *at = job->images + begin * job->in_bytes; at < job->images + end * job->in_bytes; at += 64)
        (void)*at;
}

/* 3. Copies. */

INLINE void copy_bytes(char *to, const char *from, int64_t bytes) {
    if (bytes > 256) {
        memcpy(to, from, (size_t)bytes);
        return;
    }
    if (bytes >= 16) { /* the last move may overlap the one before: a call of memcpy takes longer */
        int64_t at = 0;
        for (; at + 16 <= bytes; at += 16)
            memcpy(to + at, from + at, 16);
        if (at < bytes)
            memcpy(to + bytes - 16, from + bytes - 16, 16);
    } else if (bytes >= 8) {
        uint64_t first, last;
        memcpy(&first, from, 8), memcpy(&last, from + bytes - 8, 8);
        memcpy(to, &first, 8), memcpy(to + bytes - 8, &last, 8);
    } else if (bytes >= 4) {
        uint32_t first, last;
        memcpy(&first, from, 4), memcpy(&last, from + bytes - 4, 4);
        memcpy(to, &first, 4), memcpy(to + bytes - 4, &last, 4);
    } else {
        for (int64_t at = 0; at < bytes; at++)
            to[at] = from[at];
    }
}

#define COPY_STEPS(type)                                                                    \
    do {                                                                                    \
        type *wide = (type *)to;                                                            \
        const type *source = (const type *)from;                                            \
        if (to_step == 1 && step == -1)                                                     \
            for (int64_t at = 0; at < count; at++)                                          \
                wide[at] = source[-at];                                                     \
        else                                                                                \
            for (int64_t at = 0; at < count; at++)                                          \
                wide[at * to_step] = source[at * step];                                     \
    } while (0)

INLINE void copy_pixels(const Job *job, char *to, const char *from, int64_t step, int64_t count) {
    int64_t to_step = job->out_column, pixel = job->pixel, size = job->in_bytes;
    if (step == pixel && to_step == pixel)
        copy_bytes(to, from, count * pixel * size);
    else if (pixel == 1 && size == 1)
        COPY_STEPS(uint8_t);
    else if (pixel == 1 && size == 2)
        COPY_STEPS(uint16_t);
    else if (pixel == 1 && size == 4)
        COPY_STEPS(uint32_t);
    else if (pixel == 1)
        COPY_STEPS(uint64_t);
    else
        for (int64_t at = 0; at < count; at++)
            copy_bytes(to + at * to_step * size, from + at * step * size, pixel * size);
}

#define COPY_ROWS(type, size, bytes)                                                        \
    for (; rows > 0; rows--, to += to_row, from += from_row) {                              \
        type first, last;                                                                   \
        memcpy(&first, from, size), memcpy(&last, from + (bytes) - size, size);             \
        memcpy(to, &first, size), memcpy(to + (bytes) - size, &last, size);                 \
    }

typedef struct {
    uint64_t part[2];
} Sixteen;
typedef struct {
    uint64_t part[4];
} ThirtyTwo;

/* A block of `count` pixels of `rows` rows, from element `offset` of the images to element `at` of the output. */
static void copy_block(const Job *job, int64_t at, int64_t offset, int64_t step, int64_t count, int64_t rows) {
    int64_t to_row = job->out_row * job->out_bytes, from_row = job->in_row * job->in_bytes;
    int64_t bytes = count * job->pixel * job->in_bytes;
    char *to = job->out + at * job->out_bytes;
    const char *from = job->images + offset * job->in_bytes;
    if (step != job->pixel || job->out_column != job->pixel)
        for (; rows > 0; rows--, to += to_row, from += from_row)
            copy_pixels(job, to, from, step, count);
    else if (to_row == bytes && from_row == bytes)
        memcpy(to, from, (size_t)(rows * bytes));
    else if (bytes > 64)
        for (; rows > 0; rows--, to += to_row, from += from_row)
            copy_bytes(to, from, bytes);
    else if (bytes >= 32) /* two moves, which may overlap: a call of memcpy takes longer */
        COPY_ROWS(ThirtyTwo, 32, bytes)
    else if (bytes >= 16)
        COPY_ROWS(Sixteen, 16, bytes)
    else if (bytes >= 8)
        COPY_ROWS(uint64_t, 8, bytes)
    else if (bytes >= 4)
        COPY_ROWS(uint32_t, 4, bytes)
    else
        for (; rows > 0; rows--, to += to_row, from += from_row)
            copy_bytes(to, from, bytes);
}

/* 4. Conversions: rows to float32, and back, rounded once. */

INLINE float widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint16_t narrow(float value) { /* to the nearest bfloat16, halves to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return value != value ? 0x7FC0 : (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

INLINE uint8_t round_byte(float value) { /* clamped, to the nearest, halves to even */
    value = value > 0.0f ? value : 0.0f;
    value = value < 255.0f ? value : 255.0f;
    return (uint8_t)(int32_t)((value + 12582912.0f) - 12582912.0f);
}

#define EACH_ELEMENT(convert)                                                               \
    do {                                                                                    \
        if (to_step == pixel && step == pixel)                                              \
            EACH(int64_t at = 0; at < count * pixel; at++) to[at] = convert(source[at]);    \
        else if (pixel == 1 && to_step == 1 && step == -1)                                  \
            EACH(int64_t x = 0; x < count; x++) to[x] = convert(source[-x]);                \
        else if (pixel == 1)                                                                \
            for (int64_t x = 0; x < count; x++)                                             \
                to[x * to_step] = convert(source[x * step]);                                \
        else                                                                                \
            for (int64_t x = 0; x < count; x++)                                             \
                for (int64_t part = 0; part < pixel; part++)                                \
                    to[x * to_step + part] = convert(source[x * step + part]);              \
    } while (0)

/* Pixels of a stored row as float32 `to`, side by side. */
LOOP void load(const Job *job, float *restrict to, int64_t offset, int64_t step, int64_t count) {
    int64_t pixel = job->pixel, to_step = pixel;
    if (job->in_type == UINT8) {
        const uint8_t *source = (const uint8_t *)job->images + offset;
        EACH_ELEMENT((float));
    } else if (job->in_type == BFLOAT16) {
        const uint16_t *source = (const uint16_t *)job->images + offset;
        EACH_ELEMENT(widen);
    } else {
        const float *source = (const float *)job->images + offset;
        EACH_ELEMENT((float));
    }
}

/* The same where they lie, if they are float32 side by side; else loaded into `buffer`. */
INLINE const float *view(const Job *job, float *buffer, int64_t offset, int64_t step, int64_t count) {
    if (job->in_type == FLOAT32 && step == job->pixel)
        return (const float *)job->images + offset;
    load(job, buffer, offset, step, count);
    return buffer;
}

/* Values side by side to pixels of the output at element `offset`. */
LOOP void store(const Job *job, int64_t offset, const float *restrict source, int64_t count) {
    int64_t pixel = job->pixel, step = pixel, to_step = job->out_column;
    if (job->out_type == UINT8) {
        uint8_t *to = (uint8_t *)job->out + offset;
        EACH_ELEMENT(round_byte);
    } else if (job->out_type == BFLOAT16) {
        uint16_t *to = (uint16_t *)job->out + offset;
        EACH_ELEMENT(narrow);
    } else {
        float *to = (float *)job->out + offset;
        EACH_ELEMENT((float));
    }
}

/* 5. Arithmetic on rows. `to` may be one of the sources: every element is read before it is written. */

LOOP void blend(float *to, const float *first, const float *second, float keep, float weight, int64_t count) {
    EACH(int64_t at = 0; at < count; at++) to[at] = first[at] * keep + second[at] * weight;
}

LOOP void subtract_and_scale(float *row, const float *mean, const float *scale, int64_t count) {
    if (mean && scale)
        EACH(int64_t at = 0; at < count; at++) row[at] = (row[at] - mean[at]) * scale[at];
    else if (mean)
        EACH(int64_t at = 0; at < count; at++) row[at] -= mean[at];
    else if (scale)
        EACH(int64_t at = 0; at < count; at++) row[at] *= scale[at];
}

/* Bilinear between columns: `count` pixels from the two taps of each. */
LOOP void stretch(float *restrict to, const float *restrict from, const Scratch *scratch, int64_t count, int64_t pixel) {
    const int32_t *near = scratch->near, *far = scratch->far;
    const float *across = scratch->across;
    if (pixel == 1)
        EACH(int64_t x = 0; x < count; x++) to[x] = from[near[x]] * (1.0f - across[x]) + from[far[x]] * across[x];
    else
        for (int64_t x = 0; x < count; x++)
            for (int64_t part = 0; part < pixel; part++)
                to[x * pixel + part] = from[near[x] * pixel + part] * (1.0f - across[x]) +
                                       from[far[x] * pixel + part] * across[x];
}

/* 6. Bilinear positions (corners aligned), as in resample.py: two taps, and the second one's weight. */

INLINE float find_tap(int64_t offset, int64_t source, int64_t length, int32_t *near, int32_t *far) {
    int64_t last = source - 1;
    float scale = length > 1 ? (float)last / (float)(length - 1) : 0.0f;
    float position = (float)offset * scale, weight;
    *near = (int32_t)((int64_t)position < last ? (int64_t)position : last);
    *far = (int32_t)(*near + 1 < last ? *near + 1 : last);
    weight = position - (float)*near;
    return weight < 0.0f ? 0.0f : weight > 1.0f ? 1.0f : weight;
}

INLINE void find_columns(const Job *job, int64_t image, Scratch *scratch) {
    const int32_t *from = job->from_box + 4 * image, *to = job->to_box + 4 * image;
    for (int64_t x = 0; x < to[3] - to[1]; x++)
        scratch->across[x] = find_tap(x, from[3] - from[1], to[3] - to[1], scratch->near + x, scratch->far + x);
}

INLINE int is_resampled(const Job *job, int64_t image) {
    const int32_t *from = job->from_box + 4 * image, *to = job->to_box + 4 * image;
    return from[2] - from[0] != to[2] - to[0] || from[3] - from[1] != to[3] - to[1];
}

/* Row `y` of a resampled overlay as float32 `to`. */
INLINE void resample(const Job *job, int64_t image, int64_t plane, int64_t y, float *to, Scratch *scratch) {
    const int32_t *from = job->from_box + 4 * image, *box = job->to_box + 4 * image;
    int64_t entry = job->overlay[image], source = from[3] - from[1], pixel = job->pixel;
    int32_t top, bottom;
    float down = find_tap(y - box[0], from[2] - from[0], box[2] - box[0], &top, &bottom), keep = 1.0f - down;
    Run first = locate(job, entry, from[0] + top, from[1], source);
    Run second = locate(job, entry, from[0] + bottom, from[1], source);
    const float *upper = view(job, scratch->upper, first.offset + job->in_plane[plane], first.step, source);
    const float *lower = view(job, scratch->lower, second.offset + job->in_plane[plane], second.step, source);
    blend(scratch->upper, upper, lower, keep, down, source * pixel);
    stretch(to, scratch->upper, scratch, box[3] - box[1], pixel);
}

/* 7. Rows of the output. */

/* Base of the pixels `begin` to `end` of a row as float32 `to`. */
INLINE void load_base(const Job *job, const Run *runs, int64_t count, int64_t shift, int64_t begin, int64_t end,
                      float *to) {
    for (const Run *run = runs; run < runs + count; run++) {
        int64_t first = run->x > begin ? run->x : begin, last = run->x + run->count;
        last = last < end ? last : end;
        if (first < last)
            load(job, to + (first - begin) * job->pixel, run->offset + (first - run->x) * run->step + shift, run->step,
                 last - first);
    }
}

/* Base of the pixels `begin` to `end` of several rows, copied; `shift` and `at` lead to the first row. */
INLINE void copy_base(const Job *job, const Run *runs, int64_t count, int64_t shift, int64_t at, int64_t begin,
                      int64_t end, int64_t rows) {
    for (const Run *run = runs; rows > 0 && run < runs + count; run++) {
        int64_t first = run->x > begin ? run->x : begin, last = run->x + run->count;
        last = last < end ? last : end;
        if (first < last)
            copy_block(job, at + first * job->out_column, run->offset + (first - run->x) * run->step + shift, run->step,
                       last - first, rows);
    }
}

/* Overlay of a row: the nearest pixels, copied to the output. */
INLINE void copy_nearest(const Job *job, int64_t image, int64_t plane, int64_t y, char *row, const Scratch *scratch) {
    const int32_t *from = job->from_box + 4 * image, *box = job->to_box + 4 * image;
    int64_t count = box[3] - box[1], step = job->out_column * job->out_bytes;
    int32_t top, far;
    if (find_tap(y - box[0], from[2] - from[0], box[2] - box[0], &top, &far) > 0.5f)
        top = far;
    Run run = locate(job, job->overlay[image], from[0] + top, from[1], count);
    const char *source = job->images + (run.offset + job->in_plane[plane]) * job->in_bytes;
    for (int64_t x = 0; x < count; x++) {
        int64_t at = scratch->across[x] > 0.5f ? scratch->far[x] : scratch->near[x];
        copy_bytes(row + (box[1] + x) * step, source + at * run.step * job->in_bytes, job->pixel * job->in_bytes);
    }
}

/* Overlay of a row as float32: over base values `below`, or alone where it is opaque. */
INLINE void mix_overlay(const Job *job, int64_t image, int64_t plane, int64_t y, const float *below, float *to,
                        Scratch *scratch, int resampled) {
    const int32_t *from = job->from_box + 4 * image, *box = job->to_box + 4 * image;
    float weight = job->opacity[image], keep = 1.0f - weight;
    int64_t count = box[3] - box[1];
    const float *over = scratch->over;
    if (resampled) {
        resample(job, image, plane, y, weight == 1.0f ? to : scratch->over, scratch);
    } else {
        Run run = locate(job, job->overlay[image], from[0] + y - box[0], from[1], count);
        if (weight == 1.0f)
            load(job, to, run.offset + job->in_plane[plane], run.step, count);
        else
            over = view(job, scratch->over, run.offset + job->in_plane[plane], run.step, count);
    }
    if (weight != 1.0f)
        blend(to, below, over, keep, weight, count * job->pixel);
}

/* Rows `top` to `bottom` of a plane, in another dtype or normalised: by way of float32. */
static void convert_rows(const Job *job, int64_t image, int64_t plane, int64_t top, int64_t bottom, int64_t shift,
                         const Run *runs, int64_t count, int covers, int resampled, Scratch *scratch) {
    const int32_t *box = job->to_box + 4 * image;
    int opaque = job->opacity[image] == 1.0f;
    int64_t part = job->pixel > 1 ? 0 : plane % job->channels * job->width;
    int64_t at = image * job->out_image + job->out_plane[plane];
    for (int64_t y = top; y < bottom; y++, shift += job->in_row) {
        int here = covers && y >= box[0] && y < box[2];
        int64_t left = here ? box[1] : job->width, right = here ? box[3] : job->width;
        float *base = scratch->base, *span = base + left * job->pixel;
        load_base(job, runs, count, shift, 0, here && opaque ? left : job->width, base);
        if (here && opaque)
            load_base(job, runs, count, shift, right, job->width, base + right * job->pixel);
        if (here)
            mix_overlay(job, image, plane, y, span, span, scratch, resampled);
        subtract_and_scale(base, job->mean ? scratch->mean + part : NULL, job->scale ? scratch->scale + part : NULL,
                           job->width * job->pixel);
        store(job, at + y * job->out_row, base, job->width);
    }
}

/* Rows `top` to `bottom` of an overlay that is blended or resampled, over a base of the output's dtype. */
static void lay_rows(const Job *job, int64_t image, int64_t plane, int64_t top, int64_t bottom, int64_t shift,
                     const Run *runs, int64_t count, int resampled, Scratch *scratch) {
    const int32_t *box = job->to_box + 4 * image;
    int opaque = job->opacity[image] == 1.0f;
    int direct = job->out_type == FLOAT32 && job->out_column == job->pixel;
    int64_t left = box[1], right = box[3];
    for (int64_t y = top; y < bottom; y++, shift += job->in_row) {
        int64_t at = image * job->out_image + job->out_plane[plane] + y * job->out_row + left * job->out_column;
        float *to = direct ? (float *)job->out + at : scratch->base;
        const float *below = scratch->base;
        if (!opaque && count == 1) /* read where it lies: one pass less over the row */
            below = view(job, scratch->base, runs->offset + left * runs->step + shift, runs->step, right - left);
        else if (!opaque)
            load_base(job, runs, count, shift, left, right, scratch->base);
        mix_overlay(job, image, plane, y, below, to, scratch, resampled);
        if (!direct)
            store(job, at, to, right - left);
    }
}

/* Rows `first` to `last` of some planes of one image, one row of tiles after another. */
static void make_band(const Job *job, int64_t image, int64_t first, int64_t last, int64_t plane, int64_t planes,
                      Scratch *scratch) {
    const int32_t *box = job->to_box + 4 * image, *from = job->from_box + 4 * image;
    int covers = box[2] > box[0] && box[3] > box[1] && box[0] < last && box[2] > first;
    int resampled = covers && is_resampled(job, image);
    int copied = job->opacity[image] == 1.0f && (!resampled || job->nearest);
    int converts = job->in_type != job->out_type || job->mean || job->scale;
    int64_t tiled = job->grid * job->tile_height, first_plane = plane, end = plane + planes;
    const Run *runs = scratch->runs;
    if (resampled)
        find_columns(job, image, scratch);
    for (int64_t top = first, bottom; top < last; top = bottom) {
        int64_t tile_row = top < tiled ? top / job->tile_height : job->grid, begin = tile_row * job->tile_height;
        bottom = top < tiled && begin + job->tile_height < last ? begin + job->tile_height : last;
        int64_t count = list_runs(job, image, tile_row, scratch->runs);
        /* The overlay's rows among these. */
        int64_t upper = !covers || box[0] > bottom ? bottom : box[0] > top ? box[0] : top;
        int64_t lower = !covers || box[2] < upper ? upper : box[2] < bottom ? box[2] : bottom;
        for (plane = first_plane; plane < end; plane++) {
            int64_t shift = job->in_plane[plane] - begin * job->in_row;
            int64_t at = image * job->out_image + job->out_plane[plane];
            if (converts) {
                convert_rows(job, image, plane, top, bottom, shift + top * job->in_row, runs, count, covers, resampled,
                             scratch);
                continue;
            }
            /* Base rows of one run are copied as a block, below a copied overlay too. */
            int64_t whole = copied && count == 1 ? bottom : upper, rest = whole < bottom ? lower : bottom;
            copy_base(job, runs, count, shift + top * job->in_row, at + top * job->out_row, 0, job->width, whole - top);
            copy_base(job, runs, count, shift + rest * job->in_row, at + rest * job->out_row, 0, job->width,
                      bottom - rest);
            if (upper == lower)
                continue;
            int64_t source = shift + upper * job->in_row, to = at + upper * job->out_row;
            if (whole < bottom) {
                copy_base(job, runs, count, source, to, 0, box[1], lower - upper);
                copy_base(job, runs, count, source, to, box[3], job->width, lower - upper);
            }
            if (!copied) {
                lay_rows(job, image, plane, upper, lower, source, runs, count, resampled, scratch);
            } else if (resampled) {
                for (int64_t y = upper; y < lower; y++)
                    copy_nearest(job, image, plane, y, job->out + (at + y * job->out_row) * job->out_bytes, scratch);
            } else {
                Run run = locate(job, job->overlay[image], from[0] + upper - box[0], from[1], box[3] - box[1]);
                copy_block(job, to + box[1] * job->out_column, run.offset + job->in_plane[plane], run.step, run.count,
                           lower - upper);
            }
        }
    }
}

/* Bytes to memory past the cache, which need not be read from there first: a line of the cache at a time. */
static void stream_bytes(char *to, const char *from, int64_t bytes) {
#ifdef __SSE2__
    int64_t head = -(intptr_t)to & 63, at = head < bytes ? head : bytes;
    memcpy(to, from, (size_t)at);
    for (; at + 64 <= bytes; at += 64) {
        __m128i part[4];
        memcpy(part, from + at, 64);
        for (int i = 0; i < 4; i++)
            _mm_stream_si128((__m128i *)(to + at) + i, part[i]);
    }
    memcpy(to + at, from + at, (size_t)(bytes - at));
#else
    memcpy(to, from, (size_t)bytes);
#endif
}

/* Rows of one image, some at a time put together in the cache and then written: they lie side by side in the output. */
static void stage_band(const Job *job, int64_t image, int64_t first, int64_t last, Scratch *scratch) {
    Job staged = *job;
    int64_t bytes = job->out_bytes, touches = job->touches && shows_itself(job, image);
    staged.out = scratch->stage, staged.out_image = 0, staged.out_plane = scratch->stage_plane;
    for (int64_t plane = 0; plane < job->planes; plane++) {
        if (touches)
            touch_plane(job, image, plane);
        for (int64_t top = first, bottom; top < last; top = bottom) {
            bottom = top + job->stage_rows < last ? top + job->stage_rows : last;
            char *to = job->out + (image * job->out_image + job->out_plane[plane] + top * job->out_row) * bytes;
            int64_t size = (bottom - top) * job->out_row * bytes;
            scratch->stage_plane[plane] = -top * job->out_row;
            make_band(&staged, image, top, bottom, plane, 1, scratch);
            if (job->streams)
                stream_bytes(to, scratch->stage, size);
            else
                memcpy(to, scratch->stage, (size_t)size);
        }
    }
#ifdef __SSE2__
    _mm_sfence(); /* before another thread reads them */
#endif
}

/* 8. Units, handed out as threads come free. */

static Scratch make_scratch(const Job *job, void **memory) {
    Scratch scratch = {0};
    int64_t row = (job->width * job->pixel + 15) / 16 * 16, columns = (job->width + 15) / 16 * 16;
    int64_t parts = job->mean || job->scale ? job->width * job->channels : 0, spread = (parts + 15) / 16 * 16;
    size_t runs = (size_t)(job->grid + 1) * sizeof(Run), planes = job->stage_rows ? (size_t)job->planes : 0;
    size_t floats = (size_t)(4 * row + 2 * spread + 3 * columns), ends = runs + planes * sizeof(int64_t);
    size_t stage = (size_t)(job->stage_rows * job->out_row * job->out_bytes);
    char *at = *memory = malloc(ends + floats * sizeof(float) + stage);
    if (!at)
        return scratch;
    float *rows = (float *)(at + ends);
    scratch.runs = (Run *)at, scratch.stage_plane = (int64_t *)(at + runs), scratch.stage = (char *)(rows + floats);
    scratch.base = rows, scratch.over = rows + row, scratch.upper = rows + 2 * row, scratch.lower = rows + 3 * row;
    scratch.mean = rows + 4 * row, scratch.scale = scratch.mean + spread, scratch.across = scratch.scale + spread;
    scratch.near = (int32_t *)(scratch.across + columns), scratch.far = scratch.near + columns;
    for (int64_t i = 0; i < parts; i++) {
        int64_t channel = job->pixel > 1 ? i % job->pixel : i / job->width;
        scratch.mean[i] = job->mean ? job->mean[channel] : 0.0f;
        scratch.scale[i] = job->scale ? job->scale[channel] : 1.0f;
    }
    return scratch;
}

static void make_unit(const Job *job, int64_t unit, Scratch *scratch) {
    int64_t bands = (job->height + job->unit_rows - 1) / job->unit_rows;
    int64_t image = unit / bands * job->unit_images, end = image + job->unit_images;
    int64_t first = unit % bands * job->unit_rows, last = first + job->unit_rows;
    end = end < job->batch ? end : job->batch, last = last < job->height ? last : job->height;
    for (; image < end; image++)
        if (job->stage_rows)
            stage_band(job, image, first, last, scratch);
        else
            make_band(job, image, first, last, 0, job->planes, scratch);
}

EXPORT void drain_job(Job *job) {
    void *memory = NULL;
    Scratch scratch = {0};
    for (;;) {
        int64_t unit = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (unit >= job->units)
            break;
        if (!memory)
            scratch = make_scratch(job, &memory);
        if (memory)
            make_unit(job, unit, &scratch);
        else
            __atomic_store_n(&job->failed, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&job->done, 1, __ATOMIC_RELEASE);
    }
    free(memory);
}

/* 9. Checks: 0 if no address lies outside the images, else the number of the field that is wrong (1 tiles, 2 overlay,
 * 3 boxes, 4 index, 5 window); 6 if the plan calculates with a dtype that is copied only. */

static int is_box(const int32_t *box, int64_t height, int64_t width) {
    return box[0] >= 0 && box[1] >= 0 && box[0] <= box[2] && box[1] <= box[3] && box[2] <= height && box[3] <= width;
}

EXPORT int64_t check_job(const Job *job) {
    int64_t tiles = job->batch * job->grid * job->grid, wrong = job->tile_height < 1 || job->tile_width < 1;
    for (int64_t i = 0; i < tiles; i++)
        wrong |= job->tiles[i] < 0 || job->tiles[i] >= tiles;
    if (wrong)
        return 1;
    for (int64_t i = 0; i < job->batch; i++) {
        const int32_t *from = job->from_box + 4 * i, *to = job->to_box + 4 * i;
        if (job->overlay[i] < 0 || job->overlay[i] >= job->batch)
            return 2;
        if (!is_box(from, job->height, job->width) || !is_box(to, job->height, job->width))
            return 3;
        if (to[2] > to[0] && to[3] > to[1] && (from[2] == from[0] || from[3] == from[1]))
            return 3;
        if (job->in_type == OTHER && to[2] > to[0] && to[3] > to[1] &&
            (job->opacity[i] != 1.0f || (!job->nearest && is_resampled(job, i))))
            return 6;
        if (job->index && (job->index[i] < 0 || job->index[i] >= job->stored))
            return 4;
        if (job->window) {
            const int64_t *window = job->window + 3 * i;
            if (window[0] < 0 || window[0] > job->stored_height - job->height || window[1] < 0 ||
                window[1] > job->stored_width - job->width)
                return 5;
        }
    }
    return 0;
}

/* 10. Fresh memory in huge pages, where the system hands them out on request: fewer page faults. */

EXPORT void advise_huge_pages(void *memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page = (uintptr_t)1 << 21;
    uintptr_t begin = ((uintptr_t)memory + page - 1) & ~(page - 1), end = ((uintptr_t)memory + (uintptr_t)bytes) & ~(page - 1);
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

EXPORT int64_t read_source(void) { return SOURCE; }
EXPORT int64_t measure_job(void) { return (int64_t)sizeof(Job); }
