/* JPEG files, with libjpeg-turbo. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h> /* after stdio.h, whose FILE it needs */

#include <jerror.h>

#include "image/format.h"
#include "image/texts.h"

#define DEFAULT_QUALITY 95
#define MAX_SIDE        65500 /* JPEG_MAX_DIMENSION of libjpeg */
/*
 * Scans of a progressive file. Encoders write about ten. Each costs the time to go over all blocks, however short it
 * is, so a small file with thousands of them would take minutes ("Two Issues with the JPEG Standard", which
 * libjpeg-turbo's djpeg -maxscans is about).
 */
#define MAX_SCANS 100

/* ---- libjpeg's errors -------------------------------------------------------------------------------------------- */

/* libjpeg prints and exits by itself; these functions jump back and keep the message. */
typedef struct handler {
    struct jpeg_error_mgr base; /* the first field: libjpeg's pointer is also one to this struct */
    jmp_buf jump;
    char reason[JMSG_LENGTH_MAX];
    int out_of_memory;
} handler;

static void on_error(j_common_ptr jpeg)
{
    handler *h = (handler *)jpeg->err;
    h->out_of_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    jpeg->err->format_message(jpeg, h->reason);
    longjmp(h->jump, 1);
}

/* Warnings that lose no pixel. After any other libjpeg would go on with grey or with wrong pixels. */
static int is_harmless(int code)
{
    return code == JWRN_EXTRANEOUS_DATA || code == JWRN_ADOBE_XFORM || code == JWRN_JFIF_MAJOR;
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0 && !is_harmless(jpeg->err->msg_code))
        on_error(jpeg);
}

static void on_output(j_common_ptr jpeg)
{
    (void)jpeg; /* nothing is printed */
}

static struct jpeg_error_mgr *prepare(handler *h)
{
    memset(h, 0, sizeof *h);
    jpeg_std_error(&h->base);
    h->base.error_exit = on_error;
    h->base.emit_message = on_message;
    h->base.output_message = on_output;
    return &h->base;
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

/* What write_jpeg works on. It lies outside of write_jpeg, because libjpeg may jump out of that function. */
typedef struct writer {
    struct jpeg_compress_struct jpeg;
    struct jpeg_destination_mgr destination;
    handler handler;
    zi_bytes *out;
    size_t capacity; /* of out->data */
} writer;

/* libjpeg writes behind what out->data holds. (Its own jpeg_mem_dest loses its buffer after an error.) */
static boolean grow(j_compress_ptr jpeg)
{
    writer *w = jpeg->client_data;
    size_t capacity = w->capacity ? 2 * w->capacity : 65536;
    uint8_t *data = realloc(w->out->data, capacity);
    if (!data) {
        w->handler.out_of_memory = 1;
        longjmp(w->handler.jump, 1);
    }
    w->out->data = data;
    w->destination.next_output_byte = data + w->capacity;
    w->destination.free_in_buffer = capacity - w->capacity;
    w->capacity = capacity;
    return TRUE;
}

static void begin_output(j_compress_ptr jpeg)
{
    grow(jpeg);
}

static void end_output(j_compress_ptr jpeg)
{
    writer *w = jpeg->client_data;
    w->out->size = w->capacity - w->destination.free_in_buffer;
}

/* 4:4:4: each pixel has its own colour. */
static void set_encoder(j_compress_ptr jpeg, const zi_picture *picture)
{
    jpeg->image_width = (JDIMENSION)picture->width;
    jpeg->image_height = (JDIMENSION)picture->height;
    jpeg->input_components = 3;
    jpeg->in_color_space = JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, picture->quality ? picture->quality : DEFAULT_QUALITY, TRUE);
    jpeg->optimize_coding = TRUE;
    for (int i = 0; i < jpeg->num_components; i++)
        jpeg->comp_info[i].h_samp_factor = jpeg->comp_info[i].v_samp_factor = 1;
}

/* The markers APP1 of XMP and EXIF: a name with its zero, and the data. */
#define XMP_NAME      "http://ns.adobe.com/xap/1.0/"
#define EXIF_NAME     "Exif\0"
#define SEGMENT_BYTES 65533 /* of a marker's name and data */

/* The texts of a file in both forms; of size 0: it has none. */
typedef struct segments {
    zi_bytes xmp, exif;
} segments;

static void write_segment(j_compress_ptr jpeg, const char *name, size_t name_size, const zi_bytes *data)
{
    if (data->size == 0)
        return;
    jpeg_write_m_header(jpeg, JPEG_APP0 + 1, (unsigned)(name_size + data->size));
    for (size_t i = 0; i < name_size; i++)
        jpeg_write_m_byte(jpeg, name[i]);
    for (size_t i = 0; i < data->size; i++)
        jpeg_write_m_byte(jpeg, data->data[i]);
}

/* 0: libjpeg failed and has jumped back here. */
static int write_jpeg(writer *w, const zi_picture *picture, const segments *texts)
{
    if (setjmp(w->handler.jump))
        return 0;
    jpeg_create_compress(&w->jpeg);
    w->jpeg.client_data = w;
    w->jpeg.dest = &w->destination;
    set_encoder(&w->jpeg, picture);
    jpeg_start_compress(&w->jpeg, TRUE);
    write_segment(&w->jpeg, EXIF_NAME, sizeof EXIF_NAME, &texts->exif);
    write_segment(&w->jpeg, XMP_NAME, sizeof XMP_NAME, &texts->xmp);
    while (w->jpeg.next_scanline < w->jpeg.image_height) {
        JSAMPROW row = (JSAMPROW)(picture->rgb + (size_t)w->jpeg.next_scanline * (size_t)picture->width * 3);
        jpeg_write_scanlines(&w->jpeg, &row, 1);
    }
    jpeg_finish_compress(&w->jpeg);
    return 1;
}

static zimage_status encode_with(const zi_picture *picture, const segments *texts, zi_bytes *out, zimage_error *error)
{
    zimage_status status = ZIMAGE_OK;
    writer *w = calloc(1, sizeof *w);
    if (!w)
        return zi_fail_memory(error, "the JPEG writer", sizeof *w);
    w->jpeg.err = prepare(&w->handler);
    w->destination.init_destination = begin_output;
    w->destination.empty_output_buffer = grow;
    w->destination.term_destination = end_output;
    w->out = out;
    if (!write_jpeg(w, picture, texts))
        status = w->handler.out_of_memory
                     ? zi_fail_memory(error, "a JPEG file", 0)
                     : zi_fail(error, ZIMAGE_ERROR_FILE, "the JPEG can't be written: %s", w->handler.reason);
    jpeg_destroy_compress(&w->jpeg);
    free(w);
    return status;
}

static zimage_status encode(const zi_picture *picture, zi_bytes *out, zimage_error *error)
{
    segments texts = {0};
    zimage_status status = ZIMAGE_OK;
    if (picture->text_count)
        status = zi_texts_to_xmp(picture->texts, picture->text_count, &texts.xmp, error);
    if (status == ZIMAGE_OK)
        status =
            zi_texts_to_exif(picture->texts, picture->text_count, SEGMENT_BYTES - sizeof EXIF_NAME, &texts.exif, error);
    if (status == ZIMAGE_OK)
        status = encode_with(picture, &texts, out, error);
    free(texts.xmp.data);
    free(texts.exif.data);
    return status;
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* What read_jpeg works on. It lies outside of read_jpeg, because libjpeg may jump out of that function. */
typedef struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_progress_mgr progress;
    handler handler;
    uint64_t max_pixels;
    int too_large;
    uint8_t *cmyk; /* a row */
    zi_pixels *pixels;
} reader;

/* Jumps back with a message of our own. */
static void refuse(reader *r, const char *reason)
{
    snprintf(r->handler.reason, sizeof r->handler.reason, "%s", reason);
    longjmp(r->handler.jump, 1);
}

static void fail_memory(reader *r)
{
    r->handler.out_of_memory = 1;
    longjmp(r->handler.jump, 1);
}

static void check_scans(j_common_ptr jpeg)
{
    if (((j_decompress_ptr)jpeg)->input_scan_number > MAX_SCANS)
        refuse((reader *)jpeg->client_data, "it has more scans than any encoder writes");
}

static void choose_colours(reader *r)
{
    j_decompress_ptr jpeg = &r->jpeg;
    if (jpeg->num_components != 1 && jpeg->num_components != 3 && jpeg->num_components != 4)
        refuse(r, "it has neither 1, 3 nor 4 colour components");
    jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
}

/* A component whose scan is missing would be grey. libjpeg sets a component's table at its first scan. */
static void check_components(reader *r)
{
    for (int i = 0; i < r->jpeg.num_components; i++)
        if (!r->jpeg.comp_info[i].quant_table)
            refuse(r, "a colour component is missing");
}

/*
 * The numbers are those of Adobe, which stores inks inverted: 255 is no ink. Pillow takes all CMYK files so, with
 * Adobe's marker and without it, and multiplies as here.
 */
static void from_inverted_cmyk(const uint8_t *cmyk, uint8_t *rgb, int32_t width)
{
    for (int32_t x = 0; x < width; x++, cmyk += 4, rgb += 3)
        for (int c = 0; c < 3; c++) {
            int product = (255 - cmyk[c]) * cmyk[3] + 128; /* divided by 255, rounded to nearest */
            rgb[c] = (uint8_t)(cmyk[3] - (((product >> 8) + product) >> 8));
        }
}

static void read_rows(reader *r)
{
    size_t row = (size_t)r->pixels->width * 3;
    while (r->jpeg.output_scanline < r->jpeg.output_height) {
        uint8_t *rgb = r->pixels->data + row * r->jpeg.output_scanline;
        JSAMPROW rows[1] = {r->cmyk ? r->cmyk : rgb};
        if (jpeg_read_scanlines(&r->jpeg, rows, 1) != 1)
            refuse(r, "a row is missing");
        if (r->cmyk)
            from_inverted_cmyk(r->cmyk, rgb, r->pixels->width);
    }
}

static void allocate_pixels(reader *r)
{
    JDIMENSION width = r->jpeg.image_width, height = r->jpeg.image_height;
    if (zi_pixels_new((int32_t)width, (int32_t)height, 3, r->pixels, NULL) != ZIMAGE_OK)
        fail_memory(r);
    if (r->jpeg.out_color_space == JCS_CMYK && !(r->cmyk = malloc((size_t)width * 4)))
        fail_memory(r);
}

/* 0: libjpeg failed and has jumped back here, or the image is too large. */
static int read_jpeg(reader *r, const uint8_t *data, size_t size)
{
    if (setjmp(r->handler.jump))
        return 0;
    jpeg_create_decompress(&r->jpeg);
    r->jpeg.client_data = r;
    r->progress.progress_monitor = check_scans;
    r->jpeg.progress = &r->progress;
    jpeg_mem_src(&r->jpeg, data, (unsigned long)size);
    jpeg_read_header(&r->jpeg, TRUE);
    r->too_large = (uint64_t)r->jpeg.image_width * r->jpeg.image_height > r->max_pixels;
    if (r->too_large)
        return 0;
    choose_colours(r);
    jpeg_start_decompress(&r->jpeg);
    check_components(r);
    allocate_pixels(r);
    read_rows(r);
    jpeg_finish_decompress(&r->jpeg);
    return 1;
}

static zimage_status explain(const reader *r, zimage_error *error)
{
    uint64_t width = r->jpeg.image_width, height = r->jpeg.image_height;
    if (r->handler.out_of_memory)
        return zi_fail_memory(error, "a JPEG image", (size_t)(width * height * 3));
    if (r->too_large)
        return zi_fail_too_large(error, width, height, r->max_pixels);
    return zi_fail(error, ZIMAGE_ERROR_FORMAT, "the JPEG can't be read: %s", r->handler.reason);
}

static zimage_status decode(const uint8_t *data, size_t size, uint64_t max_pixels, zi_pixels *pixels,
                            zimage_error *error)
{
    reader *r = calloc(1, sizeof *r);
    if (!r)
        return zi_fail_memory(error, "the JPEG reader", sizeof *r);
    r->max_pixels = max_pixels;
    r->pixels = pixels;
    r->jpeg.err = prepare(&r->handler);
    zimage_status status = read_jpeg(r, data, size) ? ZIMAGE_OK : explain(r, error);
    jpeg_destroy_decompress(&r->jpeg);
    free(r->cmyk);
    free(r);
    return status;
}

/* ---- marker segments --------------------------------------------------------------------------------------------- */

#define MARKER_SOS 0xDA

static int recognise(const uint8_t *data, size_t size)
{
    return size >= 3 && data[0] == 0xFF && data[1] == 0xD8 && data[2] == 0xFF;
}

/* Whether a segment begins with a name, whose bytes are taken off. */
static int take_name(zi_piece *piece, const char *name, size_t length)
{
    if (piece->size < length || memcmp(piece->data, name, length) != 0)
        return 0;
    piece->data += length;
    piece->size -= length;
    return 1;
}

static void find_kind(zi_piece *piece, int marker)
{
    static const char exif[] = EXIF_NAME, xmp[] = XMP_NAME, first_profile[] = "ICC_PROFILE\0\1";
    if (marker == JPEG_APP0 + 1 && take_name(piece, exif, sizeof exif))
        piece->kind = ZI_PIECE_EXIF;
    else if (marker == JPEG_APP0 + 1 && take_name(piece, xmp, sizeof xmp))
        piece->kind = ZI_PIECE_XMP;
    else if (marker == JPEG_APP0 + 2 && take_name(piece, first_profile, sizeof first_profile - 1) && piece->size > 1) {
        piece->kind = ZI_PIECE_PROFILE; /* the first of its parts: behind the name, its number and their count */
        piece->data++;
        piece->size--;
    }
}

/* The segments before the pixels. */
static int next_piece(const uint8_t *data, size_t size, size_t *place, zi_piece *piece)
{
    size_t at = *place ? *place : 2;
    while (at + 1 < size && data[at] == 0xFF && data[at + 1] == 0xFF) /* fill bytes */
        at++;
    if (at + 4 > size || data[at] != 0xFF || data[at + 1] == MARKER_SOS)
        return 0;
    int marker = data[at + 1];
    size_t length = (size_t)data[at + 2] << 8 | data[at + 3];
    if (length < 2 || length > size - at - 2)
        return 0;
    *piece = (zi_piece){.data = data + at + 4, .size = length - 2};
    snprintf(piece->name, sizeof piece->name, "M%02X", (unsigned)marker);
    find_kind(piece, marker);
    *place = at + 2 + length;
    return 1;
}

const zi_image_format zi_format_jpeg = {
    .title = "JPEG",
    .extensions = {".jpg", ".jpeg"},
    .max_side = MAX_SIDE,
    .max_text_bytes = SEGMENT_BYTES - sizeof XMP_NAME, /* one segment */
    .recognise = recognise,
    .encode = encode,
    .decode = decode,
    .next_piece = next_piece,
};
