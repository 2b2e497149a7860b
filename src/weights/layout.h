/* How the layouts of Z-Image checkpoints differ from diffusers' (spec formats.md 2, 3). Inside this room. */
#ifndef ZI_WEIGHTS_LAYOUT_H
#define ZI_WEIGHTS_LAYOUT_H

#include "weights/safetensors.h"

typedef struct zi_layout zi_layout;

/* The layout of these tensors (sorted), by a name that no other layout has; diffusers' own if there is none. */
const zi_layout *zi_layout_detect(const zi_entry *entries, size_t count);
/* What diffusers' name `reference` is called in this layout; cut to size. */
void zi_layout_name(const zi_layout *layout, const char *reference, char *name, size_t size);
/* Whether convolutions are stored [out, kernel_h, kernel_w, in]. */
int zi_layout_channels_last(const zi_layout *layout);

#endif
