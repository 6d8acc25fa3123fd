// SPDX-License-Identifier: BSD-3-Clause
// What must be known of certificates before they are handed to the TLS library: that they can be read, when they end, and that a
// key belongs to its certificate (files are replaced one after the other).
#include "cluster_priv.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <time.h>

// No question is ever asked: an encrypted key counts as unreadable.
static int no_password(char *buf, int size, int rwflag, void *arg)
{
	return -1;
}

static X509 *read_certificate(const char *bytes, size_t len)
{
	BIO *bio = BIO_new_mem_buf(bytes, (int)len);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_password, NULL) : NULL;
	BIO_free(bio);
	ERR_clear_error();
	return certificate;
}

int cluster_pem_expiry(const char *bytes, size_t len, int64_t *out_wall_ms)
{
	struct tm tm = { 0 };
	X509 *certificate = len <= INT32_MAX ? read_certificate(bytes, len) : NULL;
	if (certificate == NULL)
		return -EINVAL;
	int good = ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm);
	X509_free(certificate);
	if (!good)
		return -EINVAL;
	*out_wall_ms = (int64_t)timegm(&tm) * 1000;
	return 0;
}

int cluster_pem_check_pair(const struct kubeconfig_blob *cert, const struct kubeconfig_blob *key,
	char *why, size_t why_len)
{
	X509 *certificate = read_certificate(cert->bytes, cert->len);
	BIO *bio = BIO_new_mem_buf(key->bytes, (int)key->len);
	EVP_PKEY *own = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
	int rc = -EINVAL;
	if (certificate == NULL)
		snprintf(why, why_len, "no certificate in PEM can be read");
	else if (own == NULL)
		snprintf(why, why_len, "no key in PEM without a password can be read");
	else if (X509_check_private_key(certificate, own) != 1)
		snprintf(why, why_len, "the key is not that of the certificate");
	else
		rc = 0;
	EVP_PKEY_free(own);
	BIO_free(bio);
	X509_free(certificate);
	ERR_clear_error();
	return rc;
}
