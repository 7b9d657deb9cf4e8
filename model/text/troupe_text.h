/* C ABI of the Rust library in src/. Only text.cc includes this.

   Functions answer a TroupeTextStatus; on TROUPE_TEXT_OK they have written `*out`, otherwise a
   message to `*error`. What they write belongs to the caller, who frees it with the matching
   function. Inputs are borrowed for the call. Tokenizers and templates may be used from any thread
   at once, a stream from one at a time. */
#ifndef TROUPE_MODEL_TEXT_TROUPE_TEXT_H_
#define TROUPE_MODEL_TEXT_TROUPE_TEXT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
  TROUPE_TEXT_OK = 0,
  TROUPE_TEXT_INVALID = 1,   /* the input is at fault */
  TROUPE_TEXT_EXHAUSTED = 2, /* a limit was reached */
  TROUPE_TEXT_INTERNAL = 3,  /* a bug, caught */
} TroupeTextStatus;

typedef struct {
  uint8_t* data;
  size_t size;
} TroupeTextBytes;

typedef struct {
  uint32_t* data;
  size_t size;
} TroupeTextIds;

typedef struct TroupeTextTokenizer TroupeTextTokenizer;
typedef struct TroupeTextStream TroupeTextStream;
typedef struct TroupeTextTemplate TroupeTextTemplate;

void troupe_text_bytes_free(TroupeTextBytes bytes);
void troupe_text_ids_free(TroupeTextIds ids);

int32_t troupe_text_tokenizer_new(const uint8_t* json, size_t json_size,
                                  const TroupeTextTokenizer** out, TroupeTextBytes* error);
void troupe_text_tokenizer_free(const TroupeTextTokenizer* tokenizer);
/* One more than the highest id. */
uint32_t troupe_text_tokenizer_vocab_size(const TroupeTextTokenizer* tokenizer);
int32_t troupe_text_encode(const TroupeTextTokenizer* tokenizer, const uint8_t* text,
                           size_t text_size, bool add_special, TroupeTextIds* out,
                           TroupeTextBytes* error);
int32_t troupe_text_decode(const TroupeTextTokenizer* tokenizer, const uint32_t* ids,
                           size_t ids_size, bool skip_special, TroupeTextBytes* out,
                           TroupeTextBytes* error);
/* -1 when there is no such token. */
int32_t troupe_text_token_to_id(const TroupeTextTokenizer* tokenizer, const uint8_t* token,
                                size_t token_size, int64_t* out, TroupeTextBytes* error);
int32_t troupe_text_id_to_token(const TroupeTextTokenizer* tokenizer, uint32_t id,
                                TroupeTextBytes* out, TroupeTextBytes* error);

/* A stream keeps its tokenizer alive. */
int32_t troupe_text_stream_new(const TroupeTextTokenizer* tokenizer, bool skip_special,
                               TroupeTextStream** out, TroupeTextBytes* error);
void troupe_text_stream_free(TroupeTextStream* stream);
int32_t troupe_text_stream_push(TroupeTextStream* stream, uint32_t id, TroupeTextBytes* out,
                                TroupeTextBytes* error);
int32_t troupe_text_stream_flush(TroupeTextStream* stream, TroupeTextBytes* out,
                                 TroupeTextBytes* error);

/* `variables` is a JSON object that every rendering sees. */
int32_t troupe_text_template_new(const uint8_t* source, size_t source_size,
                                 const uint8_t* variables, size_t variables_size,
                                 const TroupeTextTemplate** out, TroupeTextBytes* error);
void troupe_text_template_free(const TroupeTextTemplate* chat_template);
int32_t troupe_text_template_render(const TroupeTextTemplate* chat_template,
                                    const uint8_t* messages, size_t messages_size,
                                    const uint8_t* variables, size_t variables_size,
                                    bool add_generation_prompt, int64_t now_unix_s,
                                    TroupeTextBytes* out, TroupeTextBytes* error);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* TROUPE_MODEL_TEXT_TROUPE_TEXT_H_ */
