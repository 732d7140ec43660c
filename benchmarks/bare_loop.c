/* What the engine alone takes for a token: a loop over llama_decode and the greedy sampler, in processor time.

   Built and run by token_overhead.py: bare_loop MODEL THREADS TOKENS ROUNDS prints the fastest round's microseconds. */

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "llama.h"

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec + 1e-9 * now.tv_nsec;
}

static void silent(enum ggml_log_level level, const char *text, void *data) {
    (void)level, (void)text, (void)data;
}

int main(int count, char **words) {
    if (count != 5) return 2;
    int threads = atoi(words[2]), tokens = atoi(words[3]), rounds = atoi(words[4]);
    llama_log_set(silent, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(words[1], llama_model_default_params());
    if (!model) return 1;
    struct llama_context_params settings = llama_context_default_params();
    settings.n_ctx = 512;
    settings.n_threads = settings.n_threads_batch = threads;
    settings.no_perf = true;
    struct llama_context *context = llama_init_from_model(model, settings);
    struct llama_sampler *chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
    llama_sampler_chain_add(chain, llama_sampler_init_greedy());
    double best = 1e9;
    for (int round = 0; round < rounds; round++) {
        llama_memory_clear(llama_get_memory(context), true);
        llama_token token = 1;
        struct llama_batch batch = llama_batch_get_one(&token, 1);
        llama_decode(context, batch);
        double started = seconds();
        for (int index = 0; index + 1 < tokens; index++) {
            token = llama_sampler_sample(chain, context, -1);
            llama_decode(context, batch);
        }
        double taken = (seconds() - started) / (tokens - 1) * 1e6;
        if (taken < best) best = taken;
    }
    printf("%.2f\n", best);
    return 0;
}
