// SPDX-License-Identifier: BSD-3-Clause
// Who asks. On the UNIX socket: root, the daemon's own user and members of the socket's group have every right, by
// the kernel's word (SO_PEERCRED, SO_PEERGROUPS). On TCP: a bearer token, kept here only as SHA-256 (tokens are 256
// random bits, so a fast hash is right); all are compared, in constant time. A wrong token makes its address wait
// 1, 2, 4 ... 60 s, during which not even a right one is looked at.
//
// A browser is kept out by Host and Origin: no name but localhost and our own (DNS rebinding), no foreign page.
#include "admin_priv.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define BACKOFF_FORGET_NS (600 * CLOCK_S)

// ---------------------------------------------------------------- tokens file
static int role_parse(const char *word)
{
	static const char *const words[] = { "viewer", "operator", "admin" };
	for (int i = 0; i < 3; i++) {
		if (strcmp(word, words[i]) == 0)
			return ADMIN_VIEWER + i;
	}
	return -EINVAL;
}

static int hex_parse(const char *text, uint8_t out[32])
{
	if (strlen(text) != 64 || strspn(text, "0123456789abcdefABCDEF") != 64)
		return -EINVAL;
	for (int i = 0; i < 32; i++) {
		char pair[3] = { text[2 * i], text[2 * i + 1], 0 };
		out[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return 0;
}

static int token_line(struct admin_tokens *tokens, char *line, uint32_t number, struct error *err)
{
	char *save = NULL;
	const char *role = strtok_r(line, " \t\r\n", &save);
	if (role == NULL || role[0] == '#')
		return 0;
	const char *hash = strtok_r(NULL, " \t\r\n", &save);
	const char *comment = strtok_r(NULL, "\r\n", &save);
	struct admin_token token = { 0 };
	int rank = role_parse(role);
	if (rank < 0)
		return error_add_line(
			err, EINVAL, number, "", "role `%.20s`: viewer, operator or admin", role);
	if (hash == NULL || hex_parse(hash, token.sha256) != 0)
		return error_add_line(err, EINVAL, number, "",
			"the second word must be the SHA-256 of the token, 64 hexadecimal digits");
	if (tokens->n_items == ADMIN_TOKENS_MAX)
		return error_add_line(
			err, EINVAL, number, "", "more than %d tokens", ADMIN_TOKENS_MAX);
	token.role = (uint8_t)rank;
	snprintf(token.comment, sizeof(token.comment), "%s", comment ? comment : "");
	tokens->items[tokens->n_items++] = token;
	return 0;
}

static int tokens_read(struct admin_tokens *tokens, FILE *f, struct error *err)
{
	char *line = NULL;
	size_t cap = 0;
	int rc = 0;
	for (uint32_t number = 1; getline(&line, &cap, f) >= 0; number++) {
		int line_rc = token_line(tokens, line, number, err);
		rc = rc != 0 ? rc : line_rc;
	}
	free(line);
	if (rc == 0 && tokens->n_items == 0)
		rc = error_add(err, EINVAL, "", "no token: nobody could use this listener");
	return rc;
}

static int64_t stat_mtime_ns(const struct stat *st)
{
	return (int64_t)st->st_mtim.tv_sec * (int64_t)CLOCK_S + st->st_mtim.tv_nsec;
}

int tokens_load(struct admin_tokens *tokens, struct error *err)
{
	struct stat st;
	FILE *f = fopen(tokens->path, "re");
	if (f == NULL || fstat(fileno(f), &st) != 0) {
		int code = errno;
		if (f)
			fclose(f);
		return error_add(err, code, "admin.listen.tokens_file", "%s: %s", tokens->path,
			strerror(code));
	}
	struct admin_tokens fresh = { .mtime_ns = stat_mtime_ns(&st) };
	snprintf(fresh.path, sizeof(fresh.path), "%s", tokens->path);
	int rc;
	if (st.st_mode & (S_IWGRP | S_IWOTH)) {
		rc = error_add(err, EPERM, "admin.listen.tokens_file",
			"%s may be written by others than its owner: chmod 0600", tokens->path);
	} else {
		const char *file = err ? err->file : NULL;
		if (err)
			err->file = tokens->path;
		rc = tokens_read(&fresh, f, err);
		if (err)
			err->file = file;
	}
	fclose(f);
	if (rc == 0)
		*tokens = fresh;
	return rc;
}

// A changed file is taken over; a broken one is said once and the old tokens stay.
static void tokens_refresh(struct admin *admin, struct admin_tokens *tokens)
{
	struct stat st;
	if (stat(tokens->path, &st) != 0 || stat_mtime_ns(&st) == tokens->mtime_ns)
		return;
	struct error err = { 0 };
	char line[512];
	if (tokens_load(tokens, &err) == 0) {
		control_note(admin->control, LOG_LEVEL_INFO, "tokens-reloaded", tokens->path,
			"%u tokens", tokens->n_items);
	} else {
		control_note(admin->control, LOG_LEVEL_ERROR, "tokens-refused", tokens->path, "%s",
			error_first(&err, line, sizeof(line)));
		tokens->mtime_ns = stat_mtime_ns(&st);
	}
	error_fini(&err);
}

static const struct admin_token *token_find(const struct admin_tokens *tokens, const char *text)
{
	uint8_t hash[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	if (EVP_Digest(text, strlen(text), hash, &len, EVP_sha256(), NULL) != 1 || len != 32)
		return NULL;
	const struct admin_token *found = NULL;
	for (uint32_t i = 0; i < tokens->n_items; i++) {
		if (CRYPTO_memcmp(hash, tokens->items[i].sha256, 32) == 0)
			found = &tokens->items[i];
	}
	return found;
}

// ---------------------------------------------------------------- back-off
static struct admin_backoff *backoff_find(struct admin *admin, const struct address *peer)
{
	for (uint32_t i = 0; i < ADMIN_BACKOFFS; i++) {
		struct admin_backoff *b = &admin->backoffs[i];
		if (b->n_failures != 0 && address_equal(&b->peer, peer))
			return b;
	}
	return NULL;
}

static struct admin_backoff *backoff_add(struct admin *admin, const struct address *peer)
{
	struct admin_backoff *oldest = &admin->backoffs[0];
	for (uint32_t i = 0; i < ADMIN_BACKOFFS && oldest->n_failures != 0; i++) {
		struct admin_backoff *b = &admin->backoffs[i];
		if (b->n_failures == 0 || b->last_ns < oldest->last_ns)
			oldest = b;
	}
	*oldest = (struct admin_backoff){ .peer = *peer };
	return oldest;
}

static void backoff_fail(struct admin_request *r)
{
	struct admin *admin = r->admin;
	const struct address *peer = &r->connection->peer;
	uint64_t now_ns = admin_now_ns();
	struct admin_backoff *b = backoff_find(admin, peer);
	if (b == NULL)
		b = backoff_add(admin, peer);
	if (now_ns - b->last_ns > BACKOFF_FORGET_NS)
		b->n_failures = 0;
	b->n_failures++;
	uint64_t seconds = b->n_failures > 6 ? 60 : 1ull << (b->n_failures - 1);
	b->until_ns = now_ns + seconds * CLOCK_S;
	b->last_ns = now_ns;
	admin->n_denied++;
	char text[ADDRESS_TEXT_LEN];
	control_note(admin->control, LOG_LEVEL_WARN, "api-denied", address_format(peer, text),
		"wrong token, failure %u: waits %llu s", b->n_failures,
		(unsigned long long)seconds);
}

// ---------------------------------------------------------------- identity
static bool peer_in_group(const struct admin_connection *c, gid_t gid)
{
	if (c->gid == gid)
		return true;
	gid_t groups[256];
	socklen_t len = sizeof(groups);
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0)
		return false;
	for (size_t i = 0; i < len / sizeof(gid_t); i++) {
		if (groups[i] == gid)
			return true;
	}
	return false;
}

static int identify_unix(struct admin_request *r)
{
	const struct admin_connection *c = r->connection;
	snprintf(r->identity, sizeof(r->identity), "uid:%d", (int)c->uid);
	if (c->uid == 0 || c->uid == geteuid() || peer_in_group(c, c->server->gid))
		r->role = ADMIN_ADMIN;
	return 0;
}

static int identify_token(struct admin_request *r, const char *token)
{
	struct admin *admin = r->admin;
	struct admin_backoff *b = backoff_find(admin, &r->connection->peer);
	uint64_t now_ns = admin_now_ns();
	if (b != NULL && now_ns < b->until_ns) {
		reply_header(r, "Retry-After", "%llu",
			(unsigned long long)((b->until_ns - now_ns) / CLOCK_S + 1));
		reply_problem(r, PROBLEM_BACK_OFF, "too many wrong tokens from this address");
		return -EACCES;
	}
	tokens_refresh(admin, &r->connection->server->tokens);
	const struct admin_token *found = token_find(&r->connection->server->tokens, token);
	if (found == NULL) {
		backoff_fail(r);
		reply_header(r, "WWW-Authenticate", "Bearer error=\"invalid_token\"");
		reply_problem(r, PROBLEM_UNAUTHORIZED, "the token is not known here");
		return -EACCES;
	}
	if (b != NULL)
		b->n_failures = 0;
	r->role = found->role;
	snprintf(r->identity, sizeof(r->identity), "token:%02x%02x%02x%02x%s%s", found->sha256[0],
		found->sha256[1], found->sha256[2], found->sha256[3], found->comment[0] ? " " : "",
		found->comment);
	return 0;
}

int auth_identify(struct admin_request *r)
{
	r->role = ADMIN_NOBODY;
	if (r->connection->server->is_unix)
		return identify_unix(r);
	char peer[ADDRESS_TEXT_LEN];
	snprintf(r->identity, sizeof(r->identity), "anonymous %s",
		address_format(&r->connection->peer, peer));
	const char *header = request_header(r, "Authorization");
	if (header == NULL)
		return 0;
	if (strncasecmp(header, "Bearer ", 7) != 0) {
		reply_header(r, "WWW-Authenticate", "Bearer");
		reply_problem(r, PROBLEM_UNAUTHORIZED, "only bearer tokens are taken here");
		return -EACCES;
	}
	const char *token = header + 7;
	return identify_token(r, token + strspn(token, " "));
}

// ---------------------------------------------------------------- browsers
static bool host_is_ours(const char *host)
{
	char name[256];
	size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
	if (len >= sizeof(name) || len > strlen(host))
		return false;
	if (host[len] == ':' && strspn(host + len + 1, "0123456789") != strlen(host + len + 1))
		return false;
	memcpy(name, host, len);
	name[len] = 0;
	struct address address;
	if (name[0] == '[') {
		name[len - 1] = 0;
		return address_parse(name + 1, &address) == 0;
	}
	char own[256] = "";
	gethostname(own, sizeof(own) - 1);
	return address_parse(name, &address) == 0 || strcasecmp(name, "localhost") == 0 ||
	       (own[0] != 0 && strcasecmp(name, own) == 0);
}

int auth_check_origin(struct admin_request *r)
{
	const char *host = request_header(r, "Host");
	const char *origin = request_header(r, "Origin");
	if (!r->connection->server->is_unix && host != NULL && !host_is_ours(host)) {
		reply_problem(r, PROBLEM_ORIGIN,
			"Host must be an address, localhost or this machine's name");
		return -EACCES;
	}
	if (origin == NULL)
		return 0;
	const char *scheme = "http://";
	size_t n = strlen(scheme);
	if (host == NULL || strncasecmp(origin, scheme, n) != 0 ||
		strcasecmp(origin + n, host) != 0) {
		reply_problem(
			r, PROBLEM_ORIGIN, "requests from pages of other origins are refused");
		return -EACCES;
	}
	return 0;
}
