// Test bench and C-simulation of {{project}}.
//
// Without arguments (vitis csim, cosim): runs the vectors of tb_data, compares every output value exactly, and
// returns 1 if any differs. With arguments (see main): a whole batch from and to files of float64 numbers.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "firmware/{{header}}.h"
#include "firmware/nnet_utils/nnet_helpers.h"

namespace nnet {
bool trace_enabled = false;
std::map<std::string, void *> *trace_outputs = NULL;
size_t trace_type_size = sizeof(double);
} // namespace nnet

static const size_t INPUT_SIZE = {{input_size}};
static const size_t OUTPUT_SIZE = {{output_size}};

struct Traced {
    const char *name;
    size_t size;
};
static const Traced TRACED[] = { {{traced}} {NULL, 0}};

static void run(double *in, double *out) {
{{run}}
}

static std::vector<double> numbers(const std::string &line) {
    std::istringstream text(line);
    std::vector<double> values;
    for (double value; text >> value;)
        values.push_back(value);
    return values;
}

static int test_vectors() {
    std::ifstream features("tb_data/tb_input_features.dat"), expected("tb_data/tb_output_predictions.dat");
#ifdef RTL_SIM
    std::ofstream log("tb_data/rtl_cosim_results.log");
#else
    std::ofstream log("tb_data/csim_results.log");
#endif
    if (!features.is_open() || !expected.is_open()) {
        std::cerr << "ERROR: tb_data holds no vectors" << std::endl;
        return 1;
    }
    log.precision(17);
    size_t vectors = 0, differing = 0;
    for (std::string in_line, out_line; std::getline(features, in_line) && std::getline(expected, out_line); vectors++) {
        std::vector<double> in = numbers(in_line), want = numbers(out_line), got(OUTPUT_SIZE);
        if (in.size() != INPUT_SIZE || want.size() != OUTPUT_SIZE) {
            std::cerr << "ERROR: vector " << vectors << " has the wrong length" << std::endl;
            return 1;
        }
        run(in.data(), got.data());
        for (size_t i = 0; i < OUTPUT_SIZE; i++) {
            differing += got[i] != want[i];
            log << got[i] << (i + 1 < OUTPUT_SIZE ? " " : "\n");
        }
    }
    std::cout << "qhw: " << vectors << " vectors, " << differing << " differing outputs" << std::endl;
    return differing == 0 && vectors > 0 ? 0 : 1;
}

static void trace_start(std::vector<Traced> &wanted, int argc, char **argv) {
    nnet::trace_outputs = new std::map<std::string, void *>;
    for (const Traced *layer = TRACED; layer->name; layer++) {
        (*nnet::trace_outputs)[layer->name] = malloc(layer->size * sizeof(double));
        for (int i = 0; i < argc; i++)
            if (!strcmp(argv[i], layer->name))
                wanted.push_back(*layer);
    }
    nnet::trace_enabled = !wanted.empty();
}

// {{project}} INPUT OUTPUT TRACE [LAYER...]: for every sample in INPUT, its outputs to OUTPUT and the named
// layers' outputs to TRACE.
int main(int argc, char **argv) {
    if (argc == 1)
        return test_vectors();
    if (argc < 4)
        return 2;
    std::ifstream source(argv[1], std::ios::binary);
    std::ofstream target(argv[2], std::ios::binary), trace(argv[3], std::ios::binary);
    std::vector<Traced> wanted;
    trace_start(wanted, argc - 4, argv + 4);
    std::vector<double> in(INPUT_SIZE), out(OUTPUT_SIZE);
    while (source.read(reinterpret_cast<char *>(in.data()), INPUT_SIZE * sizeof(double))) {
        run(in.data(), out.data());
        target.write(reinterpret_cast<const char *>(out.data()), OUTPUT_SIZE * sizeof(double));
        for (const Traced &layer : wanted)
            trace.write(static_cast<const char *>((*nnet::trace_outputs)[layer.name]), layer.size * sizeof(double));
    }
    if (target.flush() && trace.flush())
        return 0;
    std::perror("ERROR: the results cannot be written");
    return 3;
}
