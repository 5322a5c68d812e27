package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/internal/version"
	"github.com/sluice-gateway/sluice/traefik/build"
)

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "An API gateway: identity and exact distributed rate limits in front of your services",
		SilenceUsage:  true, // a mistake is answered with one line, not with a page
		SilenceErrors: true, // main prints it
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Version = versions()
	root.SetVersionTemplate("{{.Version}}")
	root.SetFlagErrorFunc(func(command *cobra.Command, err error) error {
		return fmt.Errorf("%w; `%s --help` lists the flags", err, command.CommandPath())
	})
	root.AddCommand(upCommand(), demoCommand(), checkCommand(), traefikCommand(), versionCommand())
	return root
}

func upCommand() *cobra.Command {
	var options stack.Options
	command := &cobra.Command{
		Use:   "up",
		Short: "Start the whole gateway on this machine, until Ctrl-C",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Log = command.ErrOrStderr()
			return up(command, options)
		},
	}
	stackFlags(command, &options)
	flags := command.Flags()
	flags.Var(text(&options.Listen, "127.0.0.1:8080"), "listen", "`address` of HTTP; port 0 takes a free one")
	flags.Var(text(&options.ListenTLS, "127.0.0.1:8443"), "listenTLS", "`address` of HTTPS, with a certificate of SLUICE_TLS_CERT and SLUICE_TLS_KEY or a self-signed one")
	flags.Var(text(&options.Redis, ""), "redis", "`address` of a Redis, host:port, instead of the embedded one; SLUICE_REDIS_USERNAME, SLUICE_REDIS_PASSWORD, SLUICE_REDIS_TLS and SLUICE_KEY_PREFIX are honoured")
	flags.Var(text(&options.Dynamic, ""), "dynamic", "`file` with your own routes instead of the shipped ones")
	flags.Var(text(&options.ReadyFile, ""), "readyFile", "`file` to write addresses and tokens to once every part answers")
	flags.BoolVar(&options.RedirectHTTP, "redirectHTTP", false, "answer HTTP with a redirect to HTTPS")
	return command
}

// stackFlags are those that up and demo share.
func stackFlags(command *cobra.Command, options *stack.Options) {
	flags := command.Flags()
	options.Gateways = 1
	flags.Var((*count)(&options.Gateways), "gateways", fmt.Sprintf("`number` of gateways, 1 to %d; several get a load balancer before them", stack.MaxGateways))
	flags.Var(text(&options.Traefik, ""), "traefik", "stock Traefik `binary`, "+build.Version+" or newer, which interprets the plugin; without it ours is built")
	flags.Var(text(&options.Plugin, ""), "plugin", "`form` of the plugin: compiled, or interpreted (default compiled; interpreted with --traefik)")
	flags.Var(text(&options.Wiring, stack.Fast), "wiring", "`wiring`: fast (the plugin asks authsvc) or classic (Traefik's forwardAuth does)")
	flags.Var(text(&options.DataDir, ""), "dataDir", "`folder` for signing keys and certificate (default: sluice in the user's state directory)")
}

func up(command *cobra.Command, options stack.Options) error {
	s, err := stack.Open(command.Context(), options)
	if err != nil {
		return err
	}
	visit := sights{Ready: s.Ready(), Work: s.Work(), AdminTokenFile: s.AdminTokenFile(), Shipped: s.Shipped(),
		Certificate: s.Certificate(), Redirects: options.RedirectHTTP}
	tour(command.OutOrStdout(), visit)
	select {
	case <-command.Context().Done():
		fmt.Fprintln(options.Log, "\nStopping.")
	case err = <-s.Ended():
	}
	return errors.Join(err, s.Close())
}

func demoCommand() *cobra.Command {
	var options stack.Options
	command := &cobra.Command{
		Use:   "demo",
		Short: "Start a gateway, show what it promises, and check every answer",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Log = command.ErrOrStderr()
			options.Listen, options.ListenTLS = "127.0.0.1:0", "127.0.0.1:0"
			return demo(command.Context(), command.OutOrStdout(), options)
		},
	}
	stackFlags(command, &options)
	return command
}

func checkCommand() *cobra.Command {
	var options check.Options
	var live bool
	command := &cobra.Command{
		Use:   "check FILE|FOLDER|- ... [--static=FILE] [--live]",
		Short: "Print every error in a configuration, and every opening in a static one",
		Long: "Check reads what is named as one configuration: files as Traefik's file provider\n" +
			"takes them (templates and environment variables included), Kubernetes resources,\n" +
			"labels of a compose file; all files of a folder; standard input for -. It prints\n" +
			"what Traefik or the plugin would refuse, drop or never use, with file and line.\n" +
			"With --static it also prints what a static configuration leaves open, and knows\n" +
			"which entry points there are. With --live it asks the Redis and the auth\n" +
			"addresses of the configuration whether they allow what is needed; an authsvc.yml\n" +
			"among the files is asked for too. Errors end in exit code 1; warnings do not.",
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 && options.Static == "" {
				return errors.New("name the files, folders or - (standard input) to check, or --static=FILE")
			}
			options.Names, options.Stdin, options.Getenv = args, command.InOrStdin(), os.Getenv
			return runCheck(command, options, live)
		},
	}
	command.Flags().Var(text(&options.Static, ""), "static", "static configuration `file` to check as well")
	command.Flags().BoolVar(&live, "live", false, "try the configured Redis and auth addresses")
	return command
}

func runCheck(command *cobra.Command, options check.Options, live bool) error {
	out := command.OutOrStdout()
	report, err := check.Check(options)
	if err != nil {
		return err
	}
	for _, text := range report.Skipped {
		fmt.Fprintf(out, "note: not checked: %s\n", text)
	}
	if len(report.Unset) > 0 {
		fmt.Fprintf(out, "note: not set in this environment: %s\n", strings.Join(report.Unset, ", "))
	}
	if len(report.Elsewhere) > 0 {
		fmt.Fprintf(out, "note: not on this machine, so not read: %s\n", strings.Join(report.Elsewhere, ", "))
	}
	if report.Ours && !report.Ready {
		fmt.Fprintf(out, "note: no router ready, as the shipped files have it: a balancer that asks gateways for %s sends none to them\n", check.ReadyPath)
	}
	if live {
		report.Live(command.Context(), func(line string) { fmt.Fprintln(out, line) })
	}
	for _, finding := range report.Findings {
		fmt.Fprintln(out, finding)
	}
	found := len(report.Errors())
	warnings := len(report.Findings) - found
	if found > 0 {
		return errors.New(counted(found, "error") + ", " + counted(warnings, "warning"))
	}
	summary := "no errors"
	if warnings > 0 {
		summary += ", " + counted(warnings, "warning")
	}
	switch {
	case len(report.Files) > 0:
	case live: // of authsvc's Redis it has been said
		return nil
	default:
		return errors.New("nothing was checked: none of what is named is configuration of Traefik's")
	}
	fmt.Fprintf(out, "%s: %s, %s of the plugin, %s\n", strings.Join(report.Files, ", "),
		counted(report.Routers, "router"), counted(len(report.Middlewares), "middleware"), summary)
	return nil
}

func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func traefikCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "traefik",
		Short: "The Traefik that has the plugin compiled in",
		Args:  cobra.NoArgs,
		RunE:  func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	var output string
	var options build.Options
	construct := &cobra.Command{
		Use:   "build",
		Short: "Build Traefik " + build.Version + " with the plugin compiled in, and print its path",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Progress = command.ErrOrStderr()
			binary, err := build.Build(command.Context(), options)
			if err == nil && output != "" {
				binary, err = output, copyBinary(binary, output)
			}
			if err == nil {
				fmt.Fprintln(command.OutOrStdout(), binary)
			}
			return err
		},
	}
	construct.Flags().Var(text(&output, ""), "output", "`file` to copy the binary to")
	construct.Flags().Var(text(&options.WorkDir, ""), "workDir", "`folder` that Traefik will run in: it gets plugins-local with the plugins' manifests, which Traefik reads there, and our plugin's source")
	construct.Flags().StringArrayVar(&options.With, "with", nil, "another Traefik plugin to compile in, `MODULE@VERSION`; may be repeated")
	construct.Flags().Var(text(&options.Platform, ""), "platform", "`OS/ARCHITECTURE` to build for, such as linux/arm64 (default: this machine's)")
	construct.Flags().Var(text(&options.WebUI, ""), "webui", "`folder` with the dashboard's pages, webui/static of the source that Traefik publishes with a release; without it the dashboard is left out")
	command.AddCommand(construct)
	return command
}

// copyBinary goes by way of a second name, since a binary that runs can be
// replaced but not written to.
func copyBinary(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	temporary := to + ".new"
	target, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	_, err = io.Copy(target, source)
	if err = errors.Join(err, target.Close()); err != nil {
		return err
	}
	return os.Rename(temporary, to)
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version and commit, and the versions of its Traefik and of its plugin's source",
		Args:  cobra.NoArgs,
		Run: func(command *cobra.Command, _ []string) {
			fmt.Fprint(command.OutOrStdout(), versions())
		},
	}
}

// versions is what `sluice version` and `sluice --version` print.
func versions() string {
	return fmt.Sprintf("sluice   %s\ncommit   %s\ntraefik  %s\nplugin   %s\n", version.Version(), version.Commit(), build.Version, build.Source())
}
