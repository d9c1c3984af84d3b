// uWebSockets as an echo, and on /ws as the relay, to compare with: the C interface that the package
// `socketify` ships, over libuv. One thread, no compression, no TLS; prints its address as Tidegate
// does. The relay reads the messages of the load generator, objects of strings, and publishes with
// uWebSockets' own topics; it checks no more of them than that.

#define _GNU_SOURCE
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { NO_TLS = 0, ANY_PORT = 0, MESSAGE_BYTES_MAX = 1 << 20, IDLE_SECONDS_MAX = 120 };

struct tls_options {
  const char *files[6];
  int prefer_low_memory;
};
struct app;
struct socket;
struct listen_socket;
struct listen_config {
  int port;
  const char *host;
  int options;
};
struct behavior {
  int compression;
  unsigned message_bytes_max;
  unsigned short idle_seconds_max;
  unsigned backpressure_bytes_max;
  bool close_on_backpressure, reset_idle_on_send, send_pings;
  unsigned short lifetime_minutes_max;
  void *on_upgrade;
  void (*on_open)(struct socket *, void *);
  void (*on_message)(struct socket *, const char *, size_t, int, void *);
  void *on_drain, *on_ping, *on_pong;
  void (*on_close)(struct socket *, int, const char *, size_t, void *);
  void *on_subscription;
};

struct app *uws_create_app(int tls, struct tls_options options);
void uws_ws(int tls, struct app *app, const char *pattern, struct behavior behavior, void *data);
int uws_ws_send(int tls, struct socket *socket, const char *bytes, size_t count, int opcode);
bool uws_ws_subscribe(int tls, struct socket *socket, const char *topic, size_t count);
bool uws_publish(int tls, struct app *app, const char *topic, size_t topic_count, const char *bytes,
                 size_t count, int opcode, bool compress);
void uws_app_run(int tls, struct app *app);
int us_socket_local_port(int tls, struct listen_socket *socket);
typedef void (*on_listen)(struct listen_socket *, struct listen_config, void *);
void uws_app_listen_with_config(int tls, struct app *app, struct listen_config config,
                                on_listen listening, void *data);

static void opened(struct socket *socket, void *data) { (void)socket, (void)data; }

static void echo(struct socket *socket, const char *bytes, size_t count, int opcode, void *data) {
  (void)data;
  uws_ws_send(NO_TLS, socket, bytes, count, opcode);
}

struct text {
  const char *at;
  size_t count;
};

// The string of a member; empty where there is none.
static struct text member(const char *bytes, size_t count, const char *name) {
  const char *key = memmem(bytes, count, name, strlen(name));
  if (key == NULL) return (struct text){bytes, 0};
  const char *at = key + strlen(name), *end = at;
  while (end < bytes + count && *end != '"') end += *end == '\\' ? 2 : 1;
  return (struct text){at, (size_t)(end - at)};
}

static void relay(struct socket *socket, const char *bytes, size_t count, int opcode, void *data) {
  static char answer[MESSAGE_BYTES_MAX + 256];
  struct text type = member(bytes, count, "\"type\":\"");
  struct text topic = member(bytes, count, "\"topic\":\"");
  if (type.count == strlen("subscribe") && memcmp(type.at, "subscribe", type.count) == 0) {
    uws_ws_subscribe(NO_TLS, socket, topic.at, topic.count);
    int length = snprintf(answer, sizeof answer, "{\"type\":\"subscribed\",\"topic\":\"%.*s\"}",
                          (int)topic.count, topic.at);
    uws_ws_send(NO_TLS, socket, answer, (size_t)length, opcode);
    return;
  }
  struct text event = member(bytes, count, "\"event\":\"");
  struct text payload = member(bytes, count, "\"payload\":\"");
  int length = snprintf(answer, sizeof answer,
                        "{\"type\":\"push\",\"topic\":\"%.*s\",\"event\":\"%.*s\",\"payload\":\"%.*s\"}",
                        (int)topic.count, topic.at, (int)event.count, event.at, (int)payload.count,
                        payload.at);
  uws_publish(NO_TLS, data, topic.at, topic.count, answer, (size_t)length, opcode, false);
}

static void closed(struct socket *socket, int code, const char *reason, size_t count, void *data) {
  (void)socket, (void)code, (void)reason, (void)count, (void)data;
}

static void listening(struct listen_socket *socket, struct listen_config config, void *data) {
  (void)config, (void)data;
  if (socket != NULL)
    printf("uWebSockets listening on http://127.0.0.1:%d\n", us_socket_local_port(NO_TLS, socket));
  fflush(stdout);
}

int main(void) {
  struct tls_options no_tls;
  memset(&no_tls, 0, sizeof no_tls);
  struct behavior behavior;
  memset(&behavior, 0, sizeof behavior);
  behavior.message_bytes_max = behavior.backpressure_bytes_max = MESSAGE_BYTES_MAX;
  behavior.idle_seconds_max = IDLE_SECONDS_MAX;
  behavior.send_pings = true;
  behavior.on_open = opened;
  behavior.on_message = echo;
  behavior.on_close = closed;
  struct app *app = uws_create_app(NO_TLS, no_tls);
  uws_ws(NO_TLS, app, "/*", behavior, NULL);
  behavior.on_message = relay;
  uws_ws(NO_TLS, app, "/ws", behavior, app);
  struct listen_config config = {ANY_PORT, "127.0.0.1", 0};
  uws_app_listen_with_config(NO_TLS, app, config, listening, NULL);
  uws_app_run(NO_TLS, app);
  return 0;
}
