/*
 * Checkpoints come in several layouts, with other names of tensors than diffusers has
 * (docs/spec/formats.md 2 and 3). Only for src/weights.
 */
#ifndef ZI_WEIGHTS_LAYOUT_H
#define ZI_WEIGHTS_LAYOUT_H

#include "weights/safetensors.h"

typedef struct zi_layout zi_layout;

/* Recognises the layout of tensors (sorted by name) by a name that only this layout has; otherwise it is diffusers'. */
const zi_layout *zi_layout_detect(const zi_entry *entries, size_t count);
/* The name in this layout of the tensor that diffusers calls `reference`, cut to size. */
void zi_layout_name(const zi_layout *layout, const char *reference, char *name, size_t size);
/* 1: convolutions are stored as [out, kernel_h, kernel_w, in]. */
int zi_layout_channels_last(const zi_layout *layout);

#endif
