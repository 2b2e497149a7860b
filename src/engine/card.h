/* The memory of a card: what a job needs of it is found by rehearsing the job on the card's own table. */
#ifndef ZI_ENGINE_CARD_H
#define ZI_ENGINE_CARD_H

#include "engine/plan.h"

/*
 * Divides the card's memory for a job, and begins to send its weights; commit 0: only tells how. The VAE's bands become
 * narrower where that lets weights stay. *band_rows: for zi_vae_decode. ZIMAGE_ERROR_MEMORY with the numbers where the job
 * can't be done. On a processor the plan is all 0 and *band_rows stays.
 */
zimage_status zi_card_arrange(zimage_context *context, const zi_job_size *size, int commit, int64_t *band_rows,
                              zimage_device_plan *plan, zimage_error *error);

/* The same for `times` runs of one stage that `run` makes, as often as it is called: with bands of that many rows. */
typedef zimage_status zi_card_run(void *user, int64_t band_rows);
zimage_status zi_card_arrange_stage(zi_ops *ops, zi_card_run *run, void *user, int64_t image_rows, int times,
                                    int64_t *band_rows, zimage_device_plan *plan);

#endif
