// An image of D words in another order: it is taken in whole, then given out, L words, each from the address in FILE.
module gather_stream #(
    parameter W = 8, D = 64, L = 64, STYLE = 1, FILE_STYLE = 1, FILE = ""
) (
    input  clk, reset, x_valid, y_ready,
    input  [W-1:0] x,
    output x_ready, y_valid,
    output [W-1:0] y
);
    localparam WA = D > 1 ? $clog2(D) : 1, WL = L > 1 ? $clog2(L) : 1;
    reg  full, reading;
    wire given_last, taken_last, enable;
    wire [WA-1:0] write_address, read_address;
    wire [WL-1:0] place;
    wire write = x_valid & x_ready, step = enable & reading;
    assign x_ready = ~full;
    counter #(.D(D), .W(WA)) taken (.clk(clk), .reset(reset), .step(write), .y(write_address), .last(taken_last));
    counter #(.D(L), .W(WL)) given (.clk(clk), .reset(reset), .step(step), .y(place), .last(given_last));
    // Two edges from the place of a word to the word: its address, and the memory.
    pipeline_control #(.D(2)) control (
        .clk(clk), .reset(reset), .x_valid(reading), .y_ready(y_ready), .x_ready(), .y_valid(y_valid), .enable(enable)
    );
    // The last word is read one edge behind its place: an image comes in again behind that.
    reg  closing;
    always @(posedge clk)
        if (reset) begin
            full <= 0;
            reading <= 0;
            closing <= 0;
        end else begin
            if (write & taken_last) full <= 1;
            if (write & taken_last) reading <= 1;
            if (step & given_last) reading <= 0;
            if (step & given_last) closing <= 1;
            else if (enable & closing) begin
                closing <= 0;
                full <= 0;
            end
        end
    rom #(.D(L), .W(WA), .STYLE(FILE_STYLE), .FILE(FILE)) addresses (
        .clk(clk), .read(enable), .address(place), .y(read_address)
    );
    memory #(.D(D > 1 ? D : 2), .W(W), .STYLE(STYLE)) words (
        .clk(clk), .read(enable), .read_address(read_address), .y(y),
        .write(write), .write_address(write_address), .x(x)
    );
endmodule
