// Bytes of weights as words of N memories, one memory behind the other: memory i takes WORDS words of SIZES bytes, the
// lowest byte first, 24 and 16 bits of both parameters. A word's bytes are the highest of `word`.
// Weights are taken between two images: `hold` keeps the next image from beginning while they come, and they wait
// until every image that has begun has left all M outputs. X words of an image come in; `x_step` says that one did,
// `y_end` that an image's last one went out.
module weights_loader #(
    parameter N = 1, BYTES = 1, WA = 1, X = 64, M = 1,
    parameter [N*16-1:0] SIZES = 1,
    parameter [N*24-1:0] WORDS = 1
) (
    input  clk, reset, valid, last, x_step,
    input  [7:0] x,
    input  [M-1:0] y_end,
    output ready, hold,
    output reg [BYTES*8-1:0] word,
    output reg [WA-1:0] address,
    output reg [N-1:0] write
);
    localparam WN = N > 1 ? $clog2(N) : 1, WB = BYTES > 1 ? $clog2(BYTES) : 1, WX = X > 1 ? $clog2(X) : 1, IMAGES = 16;
    reg  [WN-1:0] place;        // the memory whose turn it is
    reg  [WB-1:0] count;        // bytes of its next word that are there
    reg  [WA-1:0] next;         // that word's address
    wire [15:0] size = SIZES >> place * 16;
    wire [23:0] words = WORDS >> place * 24;
    wire whole = count == size - 1;
    wire taken = valid & ready;
    always @(posedge clk) begin
        write <= 0;
        if (reset) begin
            place <= 0;
            count <= 0;
            next <= 0;
        end else if (taken) begin
            word <= {x, word} >> 8;
            count <= last | whole ? 0 : count + 1'b1;
            if (whole) begin
                write <= 1 << place;
                address <= next;
                next <= last | next == words - 1 ? 0 : next + 1'b1;
                if (next == words - 1) place <= place + 1'b1;
            end
            if (last) begin
                place <= 0;
                next <= 0;
            end
        end
    end

    reg  [WX-1:0] at;           // the place in an image of the word that comes in next
    reg  [M*IMAGES-1:0] begun;  // images that have begun and have not left an output
    reg  loading, written;      // weights are coming; the last of them is being written
    wire midway = at != 0;
    assign hold = ~midway & (valid | loading | written);
    assign ready = ~reset & (loading | (~midway & begun == 0));
    integer i;
    always @(posedge clk)
        if (reset) begin
            at <= 0;
            begun <= 0;
            loading <= 1'b0;
            written <= 1'b0;
        end else begin
            if (x_step) at <= at == X - 1 ? 0 : at + 1'b1;
            for (i = 0; i < M; i = i + 1)
                begun[i*IMAGES+:IMAGES] <= begun[i*IMAGES+:IMAGES] + (x_step & ~midway) - y_end[i];
            if (taken) loading <= ~last;
            written <= taken & last;
        end
endmodule
