// An OpenID Connect provider with users that a test names: zitadel/oidc's own server and its example's storage and
// sign-in page, behind TLS, with ID tokens that last as long as a test wants.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

var (
	issuer      = flag.String("issuer", "", "address of the provider, without a slash at its end")
	listen      = flag.String("listen", "", "address and port to listen at")
	certificate = flag.String("certificate", "", "file with the certificate")
	key         = flag.String("key", "", "file with the certificate's key")
	users       = flag.String("users", "", "file with the users, as the example has them")
	client      = flag.String("client", "", "id of the client")
	secret      = flag.String("secret", "", "secret of the client")
	redirect    = flag.String("redirect", "", "where the client is called back")
	lifetime    = flag.Duration("lifetime", time.Hour, "of an ID token")
)

// client of the example, but for how long its ID tokens last.
type brief struct {
	op.Client
}

func (brief) IDTokenLifetime() time.Duration { return *lifetime }

type store struct {
	*storage.Storage
}

func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	found, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return brief{found}, nil
}

func main() {
	flag.Parse()
	known, err := storage.StoreFromFile(*users)
	if err != nil {
		log.Fatal(err)
	}
	storage.RegisterClients(storage.WebClient(*client, *secret, *redirect))
	handler := exampleop.SetupServer(*issuer, store{storage.NewStorage(known)}, nil, false)
	log.Fatal(http.ListenAndServeTLS(*listen, *certificate, *key, handler))
}
